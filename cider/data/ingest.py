"""Import feature pickles (MMSA, CIDer's OOD and cross-dataset files) into the feature store.

Values are repaired as the published code does for -inf: what is not finite becomes 0. Frames beyond
an utterance's length are not stored. Both are counted in the manifest. Memory: one batch of rows,
and what is not frames; arrays in Fortran order and those of a pickle in protocol 0 are held whole.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.background_hash import hashed_meanwhile
from cider.data.cleaning import content_lengths, cut_frames
from cider.data.datasets import refuse_reserved_name
from cider.data.file_bytes import regular_file_size
from cider.data.import_report import (
    ImportResult,
    cleaning_notes,
    shared_id_warnings,
    size_warnings,
)
from cider.data.mmsa import MmsaSplit, find_splits, ignored_keys, read_split
from cider.data.safe_pickle import read_pickle
from cider.data.schema import BERT_BASE_UNCASED, FRAME_MODALITIES, StoreKey
from cider.data.spool import Spool
from cider.data.writer import StoreWriter, refuse_stored
from cider.errors import StoreError, UsageError
from cider.spec import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cider.data.import_plan import ImportFile
    from cider.data.progress import Progress
    from cider.spec import Alignment, Distribution, FrameDtype


_ON_DISK_FROM = 2**20
"""Arrays of at least this many bytes are not read before their rows are stored."""


ROWS_AT_ONCE = 64
"""Rows that are held with their padding."""


@dataclass(frozen=True, slots=True)
class _Hash:
    """A file that is being hashed."""

    facts: dict[str, Any]
    """What the manifest says of it."""
    wait: Callable[[], str]

    def tell(self) -> None:
        self.facts["sha256"] = self.wait()


@dataclass(slots=True)
class _Corpus:
    """The checked splits of one import, before anything is written."""

    splits: dict[str, MmsaSplit]
    source: dict[str, Any]
    notes: list[str]
    hashes: list[_Hash]
    """What will be known of the source's files when they are hashed."""


def import_pickle(
    root: Path,
    file: ImportFile,
    *,
    dataset: str,
    distribution: Distribution,
    dtype: FrameDtype = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportResult:
    """Read, check and store one feature pickle.

    Args:
        root: the store's root folder.
        file: which file, and what is known about its alignment, task and test split.
        dataset: name the corpus will have.
        distribution: iid, ood or cross_dataset.
        dtype: how frames are stored: float16 halves the store and rounds the values.
        overwrite: replace a stored corpus of the same name.
        progress: called while the file is read and while it is stored.

    Raises:
        StoreError: if the file is not what it should be; nothing is stored then.
        UsageError: if the alignment cannot be told.
    """
    refuse_reserved_name(dataset)
    if file.alignment is not None:  # Known before the file is read: refuse early.
        refuse_stored(root, _key(dataset, file.alignment, distribution, file), overwrite)
    with Spool(root) as spool, ExitStack() as hashing:
        corpus = _read(file, spool, hashing, progress)
        alignment = _alignment(file, corpus, distribution)
        widths = _widths(corpus.splits)
        padded = {split: corpus.splits[split].padded_lengths for split in SPLITS}
        cleaned: dict[str, dict[str, int]] = {}
        key = _key(dataset, alignment, distribution, file)
        shared = shared_id_warnings(split.ids for split in corpus.splits.values())
        writer = StoreWriter(
            root,
            key,
            tokenizer=BERT_BASE_UNCASED,
            widths=widths,
            max_lengths=padded["train"],
            split_max_lengths={s: padded[s] for s in SPLITS if padded[s] != padded["train"]},
            source=corpus.source,
            default_encoder=BERT_BASE_UNCASED.name,
            overwrite=overwrite,
            cleaned=cleaned,
            dtype=dtype,
        )
        with writer:
            for split in SPLITS:
                cleaned[split] = _write(
                    writer, split, corpus.splits.pop(split), alignment, progress
                )
            for each in corpus.hashes:
                each.tell()
            manifest = writer.finish()
        notes = [*corpus.notes, *cleaning_notes(manifest)]
        return ImportResult(manifest, notes, [*size_warnings(manifest), *shared])


def _key(
    dataset: str, alignment: Alignment, distribution: Distribution, file: ImportFile
) -> StoreKey:
    return StoreKey(dataset=dataset, alignment=alignment, distribution=distribution, task=file.task)


def _open(
    path: Path, spool: Spool, hashing: ExitStack, progress: Progress | None
) -> tuple[object, _Hash]:
    """Return what a file holds, and the facts about the file itself."""
    following, reading = (
        None if progress is None else partial(progress, f"{verb} {path.name}")
        for verb in ("hash", "read")
    )
    regular_file_size(path)  # Says what is wrong with a path before anything is begun.
    wait = hashing.enter_context(hashed_meanwhile(path, following))
    facts = {"file": path.name, "sha256": "", "bytes": path.stat().st_size, "format": "mmsa"}
    content = read_pickle(path, progress=reading, on_disk_from=_ON_DISK_FROM, spool=spool)
    return content, _Hash(facts, wait)


def _read(file: ImportFile, spool: Spool, hashing: ExitStack, progress: Progress | None) -> _Corpus:
    content, hashed = _open(file.path, spool, hashing, progress)
    facts, hashes = hashed.facts, [hashed]
    found = find_splits(content, file.path.name)
    origin = dict.fromkeys(SPLITS, file.path.name)
    if file.test_from is not None:
        content, hashed = _open(file.test_from, spool, hashing, progress)
        facts["test_from"] = hashed.facts
        hashes.append(hashed)
        found["test"] = find_splits(content, file.test_from.name)["test"]
        origin["test"] = file.test_from.name
    splits = {
        str(split): read_split(found[split].content, f"{origin[split]}, split {split}")
        for split in SPLITS
    }
    facts["layout"] = {
        split: {"name": found[split].name, "keys": splits[split].layout} for split in SPLITS
    }
    ignored = sorted({key for split in SPLITS for key in ignored_keys(found[split].content)})
    notes = [f"not read: the keys {', '.join(ignored)}"] if ignored else []
    if splits["train"].classes_N is None:
        notes.append("no class labels in the file: classes follow from the regression labels")
    if spool.size:
        notes.append(
            f"unpacked {spool.size / 2**30:.2f} GiB of arrays into a temporary file in the store, "
            "which is gone"
        )
    return _Corpus(splits, facts, notes, hashes)


def _widths(splits: dict[str, MmsaSplit]) -> dict[str, int]:
    widths = {}
    for name in FRAME_MODALITIES:
        found = {split: splits[split].frames[name].shape[2] for split in SPLITS}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{width} in {split}" for split, width in found.items())
            raise StoreError(f"{name} must have one feature width in every split, got {told}")
        widths[name] = found["train"]
    return widths


def _alignment(file: ImportFile, corpus: _Corpus, distribution: Distribution) -> Alignment:
    """Return the alignment, from the option, the file name or the arrays, and note which."""
    shared_axis = all(
        len(set(split.padded_lengths.values())) == 1 for split in corpus.splits.values()
    )
    alignment, told_by = file.alignment, file.alignment_from
    if alignment is None:
        alignment, told_by = _alignment_of_arrays(file, corpus, distribution, shared_axis)
    if alignment == "aligned" and not shared_axis:
        padded = corpus.splits["train"].padded_lengths
        raise UsageError(
            f"{file.path.name} is not aligned (the {told_by} says so): in aligned data every text "
            f"token has one frame, here text has {padded['text']} steps, audio {padded['audio']} "
            f"and vision {padded['vision']}; give --alignment unaligned"
        )
    corpus.notes.insert(0, f"alignment: {alignment} (told by the {told_by})")
    return alignment


def _alignment_of_arrays(
    file: ImportFile, corpus: _Corpus, distribution: Distribution, shared_axis: bool
) -> tuple[Alignment, str]:
    if not shared_axis:
        return "unaligned", "padded lengths"
    if distribution == "cross_dataset":
        return "aligned", "format of cross-dataset files"
    train = corpus.splits["train"]
    given = [lengths for lengths in train.lengths.values() if lengths is not None]
    if given and all(np.array_equal(lengths, train.text_lengths_N) for lengths in given):
        return "aligned", "lengths, which are the text's"
    padded = train.padded_lengths["text"]
    if any((lengths[lengths != train.text_lengths_N] != padded).any() for lengths in given):
        return "unaligned", "lengths, which are not the text's"
    raise UsageError(
        f"{file.path.name} does not tell whether its frames are aligned with its text: all are "
        f"padded to {padded} steps; give --alignment aligned or --alignment unaligned"
    )


def _write(
    writer: StoreWriter,
    split: str,
    content: MmsaSplit,
    alignment: Alignment,
    progress: Progress | None,
) -> dict[str, int]:
    """Store one split batch by batch; return what was noticed in it, by kind."""
    counts = Counter(content.counts)
    total = len(content.ids)
    for start in range(0, total, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        frames, source_lengths = {}, {}
        for name in FRAME_MODALITIES:
            padded_BSF, given = content.frames[name][rows], content.lengths[name]
            if alignment == "aligned":
                # The mask decides, as in the published loader; lengths may tell the padded one.
                lengths_B = content.text_lengths_N[rows]
            else:
                lengths_B = content_lengths(padded_BSF) if given is None else given[rows]
            # Copies: a view would keep the padding of all rows that wait to be written.
            frames[name] = [
                frames_SF.copy() for frames_SF in cut_frames(padded_BSF, lengths_B, name, counts)
            ]
            source_lengths[name] = _other_lengths(
                None if given is None else given[rows], frames[name]
            )
        writer.add(
            split,
            content.ids[rows],
            content.texts[rows],
            _tokens(content, rows),
            frames["audio"],
            frames["vision"],
            content.labels_N[rows],
            None if content.classes_N is None else content.classes_N[rows],
            None if content.annotations is None else content.annotations[rows],
            source_lengths=source_lengths,
        )
        if progress is not None:
            progress(f"store {split}", min(rows.stop, total), total)
    return {kind: count for kind, count in sorted(counts.items()) if count}


def _tokens(content: MmsaSplit, rows: slice) -> list[np.ndarray]:
    lengths = content.text_lengths_N[rows].tolist()
    return [ids[:n] for ids, n in zip(content.token_ids_NT[rows], lengths, strict=True)]


def _other_lengths(given_B: np.ndarray | None, frames: list[np.ndarray]) -> list[int | None]:
    if given_B is None:
        return [None] * len(frames)
    return [
        None if length == len(row) else length
        for length, row in zip(given_B.tolist(), frames, strict=True)
    ]
