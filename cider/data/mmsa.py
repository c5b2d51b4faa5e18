"""The MMSA pickle format, read and checked: one dictionary per split, arrays padded with zeros.

Keys of a split: ``raw_text``, ``id``, ``audio`` (N, S, F), ``vision`` (N, S, F), ``text_bert``
(N, 3, T: token ids, mask, segments), ``regression_labels`` (N,) and, where the source has them,
``audio_lengths``, ``vision_lengths``, ``annotations``, ``classification_labels``. CIDer's OOD and
cross-dataset files have the same keys. Shapes: N utterances, T text steps, S frames, F width.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from cider.data.array_on_disk import ArrayOnDisk, whole
from cider.data.labels import LABEL_RANGE, class_labels
from cider.data.schema import BERT_BASE_UNCASED, FRAME_MODALITIES
from cider.errors import StoreError
from cider.spec import SPLITS

SPLIT_NAMES = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}
"""Split of the store for each name a source may use."""
REQUIRED = ("raw_text", "id", "audio", "vision", "text_bert", "regression_labels")
OPTIONAL = ("audio_lengths", "vision_lengths", "annotations", "classification_labels")


@dataclass(frozen=True, slots=True)
class FoundSplit:
    """One split of an unpickled file, not checked yet."""

    name: str
    """The source's name of it: ``valid`` or ``dev``."""
    content: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MmsaSplit:
    """One split as the source holds it, checked; N utterances."""

    ids: list[str]
    texts: list[str]
    token_ids_NT: np.ndarray
    """int32, zero beyond each length."""
    text_lengths_N: np.ndarray
    """int64, at least 2: start and end token."""
    frames: dict[str, np.ndarray | ArrayOnDisk]
    """``audio`` and ``vision``: any float type (N, S, F), the source's own arrays, not cleaned."""
    lengths: dict[str, np.ndarray | None]
    """``audio`` and ``vision``: int64 (N,) as given, None where the source gives none."""
    labels_N: np.ndarray
    """float32."""
    classes_N: np.ndarray | None
    annotations: list[str] | None
    layout: dict[str, str]
    """Container of each key that is kept: ``list``, or the array's dtype."""
    counts: Counter[str]
    """What was noticed in this split, by kind."""

    @property
    def padded_lengths(self) -> dict[str, int]:
        """Padded length of text, audio and vision."""
        padded = {name: self.frames[name].shape[1] for name in FRAME_MODALITIES}
        return {"text": self.token_ids_NT.shape[1], **padded}


def find_splits(content: object, where: str) -> dict[str, FoundSplit]:
    """Return the splits of an unpickled file by their names in the store.

    Raises:
        StoreError: if the file is no MMSA pickle; the message says what is missing.
    """
    if not isinstance(content, dict):
        raise StoreError(
            f"{where} must hold a dictionary with the splits train, valid (or dev) and test, "
            f"got {type(content).__name__}"
        )
    splits: dict[str, FoundSplit] = {}
    for name, split in content.items():
        target = SPLIT_NAMES.get(name) if isinstance(name, str) else None
        if target is None:
            continue
        if not isinstance(split, dict):
            raise StoreError(
                f"{where}: split {name} must be a dictionary, got {type(split).__name__}"
            )
        if target in splits:
            raise StoreError(f"{where} has both valid and dev, which name the same split")
        splits[target] = FoundSplit(name, split)
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        found = ", ".join(sorted(map(str, content))[:20]) or "nothing"
        raise StoreError(f"{where} lacks the split {', '.join(missing)}; it has {found}")
    return splits


def read_split(split: dict[str, Any], where: str) -> MmsaSplit:
    """Check one split and return it.

    Args:
        split: the source's dictionary.
        where: file and split, for messages.

    Raises:
        StoreError: if a key is missing or a value is not what it should be.
    """
    _check_keys(split, where)
    ids = _strings(split["id"], f"{where}: id")
    counts: Counter[str] = Counter()
    frames = {name: _frames(split[name], f"{where}: {name}") for name in FRAME_MODALITIES}
    token_ids_NT, text_lengths_N = _tokens(split["text_bert"], f"{where}: text_bert", counts)
    texts = _strings(split["raw_text"], f"{where}: raw_text")
    labels_N = _labels(split["regression_labels"], f"{where}: regression_labels")
    sizes = {
        "id": len(ids),
        "raw_text": len(texts),
        "text_bert": len(token_ids_NT),
        "regression_labels": len(labels_N),
        **{name: len(array) for name, array in frames.items()},
    }
    lengths, classes_N, annotations = {}, None, None
    for name in FRAME_MODALITIES:
        key = f"{name}_lengths"
        lengths[name] = _lengths(split.get(key), frames[name], f"{where}: {key}", sizes, key)
    if "classification_labels" in split:
        classes_N = _classes(split["classification_labels"], f"{where}: classification_labels")
        sizes["classification_labels"] = len(classes_N)
    if "annotations" in split:
        annotations = _strings(split["annotations"], f"{where}: annotations")
        sizes["annotations"] = len(annotations)
    _check_sizes(sizes, where)
    _check_unique(ids, where)
    if classes_N is not None:
        counts["class_differs_from_sign"] = int(
            (classes_N != class_labels(labels_N, "three_class")).sum()
        )
    return MmsaSplit(
        ids=ids,
        texts=texts,
        token_ids_NT=token_ids_NT,
        text_lengths_N=text_lengths_N,
        frames=frames,
        lengths=lengths,
        labels_N=labels_N,
        classes_N=classes_N,
        annotations=annotations,
        layout={key: _container(split[key]) for key in split if key in (*REQUIRED, *OPTIONAL)},
        counts=counts,
    )


def ignored_keys(split: dict[str, Any]) -> list[str]:
    """Return the keys of a split that are not read."""
    return sorted(str(key) for key in split if key not in (*REQUIRED, *OPTIONAL))


def _check_keys(split: dict[str, Any], where: str) -> None:
    missing = [key for key in REQUIRED if key not in split]
    if missing == ["text_bert"] and "text" in split:
        raise StoreError(
            f"{where} has text as BERT vectors (key text) without token ids (key text_bert); "
            "the text encoder is trained, so ids are needed: use the MMSA file that has text_bert"
        )
    if missing:
        raise StoreError(
            f"{where} lacks {', '.join(missing)}; it has {', '.join(sorted(map(str, split)))}"
        )


def _container(value: object) -> str:
    return value.dtype.str if isinstance(value, np.ndarray | ArrayOnDisk) else "list"


def _check_sizes(sizes: dict[str, int], where: str) -> None:
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} {key}" for key, size in sizes.items())
        raise StoreError(f"{where}: every key must have one row per utterance, got {found}")
    if not sizes["id"]:
        raise StoreError(f"{where} has no utterances")


def _check_unique(ids: list[str], where: str) -> None:
    (name, count), *_ = Counter(ids).most_common(1)
    if count > 1:
        raise StoreError(f"{where}: id {name!r} occurs {count} times; ids must be unique")


def _strings(value: object, where: str) -> list[str]:
    value = whole(value)
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(rows, list | tuple):
        raise StoreError(f"{where} must be a list of texts, got {type(value).__name__}")
    for row, item in enumerate(rows):
        if not isinstance(item, str):
            raise StoreError(f"{where}, row {row} must be text, got {item!r:.60}")
    return [str(item) for item in rows]


def _array(value: object, where: str, ndim: int, shape: str) -> np.ndarray:
    array = _described(value, where, ndim, shape)
    return array[:] if isinstance(array, ArrayOnDisk) else array


def _described(value: object, where: str, ndim: int, shape: str) -> np.ndarray | ArrayOnDisk:
    """Return numbers of so many dimensions, unread where they are on disk."""
    array = value if isinstance(value, np.ndarray | ArrayOnDisk) else None
    if isinstance(value, list):
        try:
            array = np.asarray(value)
        except ValueError:  # Ragged.
            array = None
    if array is None or array.ndim != ndim or array.dtype.kind not in "fiub":
        found = type(value).__name__
        if array is not None:
            found = f"{array.dtype} of shape {array.shape}"
        raise StoreError(f"{where} must be numbers of shape {shape}, got {found}")
    if not len(array):
        raise StoreError(f"{where} is empty: the split has no utterances")
    return array


def _frames(value: object, where: str) -> np.ndarray | ArrayOnDisk:
    array = _described(value, where, 3, "(utterances, steps, width)")
    if 0 in array.shape[1:]:
        raise StoreError(f"{where} must have at least one step and one feature, got {array.shape}")
    return array


def _tokens(value: object, where: str, counts: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    array = _array(value, where, 3, "(utterances, 3, steps)")
    if array.shape[1] != 3 or array.shape[2] < 2:
        raise StoreError(f"{where} must have shape (utterances, 3, steps), got {array.shape}")
    ids_NT, mask_NT, segment_NT = array[:, 0], array[:, 1], array[:, 2]
    size = BERT_BASE_UNCASED.vocab_size
    # Written so that NaN fails the test.
    integral_NT = (ids_NT >= 0) & (ids_NT < size) & (ids_NT == np.floor(ids_NT))
    _every_row(integral_NT, f"{where}: token ids must be whole numbers in [0, {size - 1}]")
    lengths_N = (mask_NT == 1).sum(axis=1)
    valid_NT = np.arange(array.shape[2]) < lengths_N[:, None]
    _every_row(mask_NT == valid_NT, f"{where}: the mask must be ones, then zeros")
    _every_row(
        (ids_NT != BERT_BASE_UNCASED.pad) == valid_NT,
        f"{where}: the mask must be 1 exactly where the token id is not padding (0)",
    )
    _every_row(
        lengths_N[:, None] >= 2, f"{where}: a text must have at least its start and end token"
    )
    ids_NT = ids_NT.astype(np.int32)
    last_N = np.take_along_axis(ids_NT, lengths_N[:, None] - 1, axis=1)[:, 0]
    framed_N = (ids_NT[:, 0] == BERT_BASE_UNCASED.start) & (last_N == BERT_BASE_UNCASED.end)
    counts["text_without_start_or_end_token"] = int((~framed_N).sum())
    counts["text_segments_dropped"] = int((segment_NT != 0).any(axis=1).sum())
    return ids_NT, lengths_N.astype(np.int64)


def _every_row(holds: np.ndarray, rule: str) -> None:
    bad = np.flatnonzero(~holds.reshape(len(holds), -1).all(axis=1))
    if len(bad):
        raise StoreError(f"{rule}; {len(bad)} of {len(holds)} rows are not, first row {bad[0]}")


def _labels(value: object, where: str) -> np.ndarray:
    array = _array(value, where, 1, "(utterances,)")
    low, high = LABEL_RANGE
    bad = np.flatnonzero(~((array >= low) & (array <= high)))
    if len(bad):
        raise StoreError(
            f"{where} must be in [-3, 3]; {len(bad)} of {len(array)} are not, "
            f"first row {bad[0]}: {array[bad[0]]:g}"
        )
    return array.astype(np.float32)


def _classes(value: object, where: str) -> np.ndarray:
    array = _array(value, where, 1, "(utterances,)")
    bad = np.flatnonzero(~((np.abs(array) <= 100) & (array == np.floor(array))))
    if len(bad):
        raise StoreError(f"{where} must be small whole numbers; row {bad[0]} has {array[bad[0]]}")
    return array.astype(np.int64)


def _lengths(
    value: object, frames_NSF: np.ndarray | ArrayOnDisk, where: str, sizes: dict[str, int], key: str
) -> np.ndarray | None:
    if value is None:
        return None
    array = _array(value, where, 1, "(utterances,)")
    longest = frames_NSF.shape[1]
    bad = np.flatnonzero(~((array >= 0) & (array <= longest) & (array == np.floor(array))))
    if len(bad):
        raise StoreError(
            f"{where} must be whole numbers in [0, {longest}] (the padded length); "
            f"row {bad[0]} has {array[bad[0]]}"
        )
    sizes[key] = len(array)
    return array.astype(np.int64)
