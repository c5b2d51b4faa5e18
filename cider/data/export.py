"""Write a stored corpus as a feature pickle in the MMSA format.

An imported corpus comes back as its source was: same keys, containers, dtypes and padded lengths;
only keys that are not read, and values that were repaired or lay beyond an utterance's length,
differ. Shapes: N utterances, T text steps, S frames, F feature width.
"""

from __future__ import annotations

import pickle
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cider.data.label_table import LabelTable, read_label_table
from cider.data.labels import class_labels
from cider.data.schema import FRAME_MODALITIES, Manifest
from cider.data.store import FeatureStore, SplitView
from cider.errors import StoreError
from cider.registry import lookup
from cider.spec import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cider.data.progress import Progress

T = TypeVar("T")

# 4 is the newest protocol that every program reading MMSA files understands.
_PICKLE_PROTOCOL = 4
_ANNOTATIONS = ("Negative", "Neutral", "Positive")
_DTYPES = {
    "raw_text": "|O",
    "audio": "<f4",
    "vision": "<f4",
    "id": "|O",
    "text_bert": "<f4",
    "annotations": "|O",
    "classification_labels": "<i8",
    "regression_labels": "<f4",
}
"""Keys and containers where the source was no pickle; lengths are added to unaligned corpora."""


def export_corpus(
    folder: Path,
    out: Path,
    *,
    format_name: str = "mmsa",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a stored corpus to one file.

    Args:
        folder: the stored corpus.
        out: the file to write; its folder must exist.
        format_name: ``mmsa``.
        overwrite: replace ``out`` if it exists.
        progress: called after each split.

    Returns:
        The size of the file in bytes.

    Raises:
        StoreError: if the corpus is damaged or the file cannot be written.
        UsageError: for another format.
    """
    build = lookup("export format", format_name, _FORMATS)
    if out.exists() and not overwrite:
        raise StoreError(f"{out} exists; add --overwrite to replace it")
    content = build(FeatureStore.open(folder), progress)
    temporary = out.with_name(f".{out.name}-{uuid.uuid4().hex[:12]}")
    try:
        with temporary.open("wb") as file:
            pickle.dump(content, file, protocol=_PICKLE_PROTOCOL)
        temporary.replace(out)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return out.stat().st_size


def _mmsa(store: FeatureStore, progress: Progress | None) -> dict[str, dict[str, Any]]:
    content = {}
    for done, split in enumerate(SPLITS, start=1):
        name, keys = _layout(store.manifest, split)
        view, labels = store.split(split), read_label_table(store.folder, split)
        content[name] = {
            key: _as(container, _value(key, view, labels, store.manifest))
            for key, container in keys.items()
        }
        if progress is not None:
            progress("export", done, len(SPLITS))
    return content


_FORMATS: dict[str, Callable[[FeatureStore, Progress | None], dict[str, Any]]] = {"mmsa": _mmsa}


def _layout(manifest: Manifest, split: str) -> tuple[str, dict[str, str]]:
    """Return the source's name of a split, and its keys in order with their containers."""
    layout = manifest.source.get("layout")
    if layout is not None:
        return layout[split]["name"], layout[split]["keys"]
    keys = dict(_DTYPES)
    if manifest.alignment == "unaligned":
        keys |= {f"{name}_lengths": "list" for name in FRAME_MODALITIES}
    return split, keys


def _value(key: str, view: SplitView, labels: LabelTable, manifest: Manifest) -> Any:  # noqa: ANN401
    """Return the content of one key, not yet in its container."""
    padded = manifest.padded_lengths(view.name)
    if key in FRAME_MODALITIES:
        return _padded_frames(view, key, padded[key])
    if key.endswith("_lengths"):
        return _lengths(view, key.removesuffix("_lengths"))
    builders: dict[str, Callable[[], Any]] = {
        "raw_text": lambda: view.texts,
        "id": lambda: view.ids,
        "text_bert": lambda: _text_bert(view, padded["text"]),
        "regression_labels": lambda: labels.labels,
        "classification_labels": lambda: _classes(labels),
        "annotations": lambda: _annotations(labels),
    }
    return builders[key]()


def _as(container: str, value: Any) -> Any:  # noqa: ANN401
    if container == "list":
        return value.tolist() if isinstance(value, np.ndarray) else list(value)
    return np.asarray(value, dtype=np.dtype(container))


def _padded_frames(view: SplitView, name: str, steps: int) -> np.ndarray:
    frames_NSF = np.zeros((len(view), steps, view.widths[name]), np.float32)
    for row in range(len(view)):
        frames_SF = view.frames(name, row)
        frames_NSF[row, : len(frames_SF)] = frames_SF
    return frames_NSF


def _text_bert(view: SplitView, steps: int) -> np.ndarray:
    text_N3T = np.zeros((len(view), 3, steps), np.int64)
    for row in range(len(view)):
        ids_T = view.token_ids(row)
        text_N3T[row, 0, : len(ids_T)] = ids_T
        text_N3T[row, 1, : len(ids_T)] = 1
    return text_N3T


def _lengths(view: SplitView, name: str) -> list[int]:
    stored = view.lengths.audio if name == "audio" else view.lengths.vision
    return [_first(*pair) for pair in zip(view.source_lengths(name), stored.tolist(), strict=True)]


def _classes(labels: LabelTable) -> list[int]:
    signs = class_labels(labels.labels, "three_class").tolist()
    return [_first(*pair) for pair in zip(labels.source_classes, signs, strict=True)]


def _annotations(labels: LabelTable) -> list[str]:
    words = [_ANNOTATIONS[sign] for sign in class_labels(labels.labels, "three_class").tolist()]
    return [_first(*pair) for pair in zip(labels.annotations, words, strict=True)]


def _first(given: T | None, derived: T) -> T:
    return derived if given is None else given
