"""Import a user's own corpus: a CSV table of transcripts and labels beside an npz of features.

Rows are counted from 1, without the heading, in every message.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.data.datasets import refuse_reserved_name
from cider.data.hashing import file_sha256
from cider.data.import_report import ImportResult, cleaning_notes, size_warnings
from cider.data.labels import LABEL_RANGE
from cider.data.mmsa import SPLIT_NAMES
from cider.data.npz_features import NpzFeatures, read_npz
from cider.data.schema import FRAME_MODALITIES, ROWS_PER_BATCH, StoreKey
from cider.data.spool import Spool
from cider.data.tokenizer_source import TextTokenizer, load_tokenizer
from cider.data.writer import StoreWriter, refuse_stored
from cider.errors import StoreError
from cider.spec import SPLITS

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.progress import Progress
    from cider.spec import Alignment, FrameDtype

COLUMNS = ("id", "split", "label", "text")
MAX_TEXT_LENGTH = 50
"""Most tokens of a text, start and end token included. Published: 50."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One utterance of the table."""

    number: int
    """Counted from 1."""
    name: str
    split: str
    label: float
    text: str


def read_table(path: Path) -> tuple[list[TableRow], list[str]]:
    """Return the rows of a corpus table, and the names of columns that are not read.

    Args:
        path: CSV, UTF-8, with a heading that has ``id, split, label, text``.

    Raises:
        StoreError: for the first row that is not what it should be; the message has its number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            missing = [name for name in COLUMNS if name not in columns]
            if missing:
                raise StoreError(
                    f"{path.name} lacks the column {', '.join(missing)}; its heading is "
                    f"{', '.join(columns) or 'empty'}"
                )
            rows = [_row(values, number, path) for number, values in enumerate(reader, start=1)]
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}; check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{path.name} cannot be read as CSV in UTF-8: {error}") from error
    _check_rows(rows, path)
    return rows, [name for name in columns if name not in COLUMNS]


def import_table(
    root: Path,
    table: Path,
    features: Path,
    *,
    dataset: str,
    encoder: str,
    alignment: Alignment = "unaligned",
    max_text_length: int = MAX_TEXT_LENGTH,
    dtype: FrameDtype = "float32",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportResult:
    """Read, check, tokenise and store a user's corpus.

    Args:
        root: the store's root folder.
        table: CSV with ``id, split, label, text``.
        features: npz with ``audio`` and ``vision``; see ``cider.data.npz_features``.
        dataset: name the corpus will have.
        encoder: Hugging Face name or folder of the text encoder, whose tokenizer is used.
        alignment: ``aligned`` says that audio and vision have one frame per text token.
        max_text_length: texts of more tokens are cut, and counted.
        dtype: how frames are stored: float16 halves the store and rounds the values.
        overwrite: replace a stored corpus of the same name.
        progress: called while rows are stored.

    Raises:
        StoreError: if a row or an array is not what it should be; nothing is stored then.
    """
    key = StoreKey(dataset=dataset, alignment=alignment, distribution="iid")
    refuse_reserved_name(dataset)
    refuse_stored(root, key, overwrite)
    rows, extra = read_table(table)
    with Spool(root) as spool:
        arrays = read_npz(features, spool)
        order = _match(rows, arrays, table.name, features.name)
        tokenizer = load_tokenizer(encoder, max_text_length)
        padded = {name: arrays.modalities[name].padded for name in FRAME_MODALITIES}
        if alignment == "aligned":
            padded = dict.fromkeys(FRAME_MODALITIES, max_text_length)
        cleaned: dict[str, dict[str, int]] = {}
        writer = StoreWriter(
            root,
            key,
            tokenizer=tokenizer.record,
            widths={name: arrays.modalities[name].frames.shape[1] for name in FRAME_MODALITIES},
            max_lengths={"text": max_text_length, **padded},
            source={
                "file": table.name,
                "format": "table",
                "sha256": file_sha256(table),
                "bytes": table.stat().st_size,
                "features": {"file": features.name, "sha256": file_sha256(features)},
            },
            default_encoder=tokenizer.encoder,
            overwrite=overwrite,
            cleaned=cleaned,
            dtype=dtype,
        )
        corpus = _TableCorpus(rows, order, arrays, tokenizer, max_text_length, alignment)
        with writer:
            for split in SPLITS:
                cleaned[split] = corpus.write(writer, split, progress)
            manifest = writer.finish()
        notes = [*_notes(arrays, extra, len(rows)), *cleaning_notes(manifest)]
        return ImportResult(manifest, notes, size_warnings(manifest))


@dataclass(frozen=True, slots=True)
class _TableCorpus:
    """Everything of one import that is known before rows are written."""

    rows: list[TableRow]
    order: list[int]
    """Row of the feature file for each row of the table."""
    arrays: NpzFeatures
    tokenizer: TextTokenizer
    max_text_length: int
    alignment: Alignment

    def write(self, writer: StoreWriter, split: str, progress: Progress | None) -> dict[str, int]:
        """Store one split batch by batch; return how many texts were cut."""
        mine = [index for index, row in enumerate(self.rows) if row.split == split]
        cut = 0
        for start in range(0, len(mine), ROWS_PER_BATCH):
            part = mine[start : start + ROWS_PER_BATCH]
            rows = [self.rows[index] for index in part]
            token_ids, num_cut = self.tokenizer.encode(
                [row.text for row in rows], self.max_text_length
            )
            cut += num_cut
            frames = {name: self._frames(name, part, token_ids) for name in FRAME_MODALITIES}
            writer.add(
                split,
                [row.name for row in rows],
                [row.text for row in rows],
                token_ids,
                frames["audio"],
                frames["vision"],
                np.array([row.label for row in rows], np.float32),
            )
            if progress is not None:
                progress(f"store {split}", start + len(part), len(mine))
        return {"text_truncated": cut} if cut else {}

    def _frames(self, name: str, part: list[int], token_ids: list[np.ndarray]) -> list[np.ndarray]:
        found = []
        for index, ids_T in zip(part, token_ids, strict=True):
            frames_SF = self.arrays.modalities[name].row(self.order[index])
            row = self.rows[index]
            where = f"row {row.number} (id {row.name!r})"
            if not np.isfinite(frames_SF).all():
                raise StoreError(f"{where}: {name} has values that are not finite; repair them")
            if self.alignment == "aligned" and len(frames_SF) != len(ids_T):
                raise StoreError(
                    f"{where}: aligned data needs one {name} frame per text token, got "
                    f"{len(frames_SF)} frames for {len(ids_T)} tokens (start and end token "
                    "included); give --alignment unaligned"
                )
            found.append(frames_SF)
        return found


def _row(values: dict[str, str | None], number: int, path: Path) -> TableRow:
    where = f"{path.name}, row {number}"
    cells = {name: (values[name] or "").strip() for name in COLUMNS}
    if None in values or None in values.values():
        raise StoreError(
            f"{where} has more or fewer cells than the heading; quote texts with commas"
        )
    for name in ("id", "text"):
        if not cells[name]:
            raise StoreError(f"{where}: {name} is empty")
    if cells["split"] not in SPLIT_NAMES:
        raise StoreError(
            f"{where}: split must be train, valid (or dev) or test, got {cells['split']!r}"
        )
    try:
        label = float(cells["label"])
    except ValueError:
        label = math.nan
    if not LABEL_RANGE[0] <= label <= LABEL_RANGE[1]:
        raise StoreError(f"{where}: label must be a number in [-3, 3], got {cells['label']!r}")
    return TableRow(number, cells["id"], SPLIT_NAMES[cells["split"]], label, cells["text"])


def _check_rows(rows: list[TableRow], path: Path) -> None:
    first: dict[str, int] = {}
    for row in rows:
        if row.name in first:
            raise StoreError(
                f"{path.name}, row {row.number}: id {row.name!r} is also in row {first[row.name]}; "
                "ids must be unique"
            )
        first[row.name] = row.number
    counts = Counter(row.split for row in rows)
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        raise StoreError(
            f"{path.name} has no row of split {' and '.join(empty)}; all of train, valid and test "
            "are needed"
        )


def _match(rows: list[TableRow], arrays: NpzFeatures, table: str, features: str) -> list[int]:
    """Return the feature row of every table row: by id where the file has ids, else by order."""
    sizes = {name: len(frames) for name, frames in arrays.modalities.items()}
    if arrays.ids is not None:
        sizes["id"] = len(arrays.ids)
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise StoreError(f"{features} must have one row per utterance in every array, got {told}")
    count = sizes["audio"]
    if arrays.ids is None:
        if count != len(rows):
            raise StoreError(
                f"{features} has {count} utterances, {table} has {len(rows)} rows; give the "
                "features in the table's order, or add an array id to match them by"
            )
        return list(range(count))
    position = {name: index for index, name in enumerate(arrays.ids)}
    if len(position) != count:
        (name, times), *_ = Counter(arrays.ids).most_common(1)
        raise StoreError(f"{features}: id {name!r} occurs {times} times; ids must be unique")
    for row in rows:
        if row.name not in position:
            raise StoreError(
                f"{table}, row {row.number}: {features} has no features of {row.name!r}"
            )
    return [position[row.name] for row in rows]


def _notes(arrays: NpzFeatures, extra: list[str], num_rows: int) -> list[str]:
    notes = [
        f"{name}: no lengths are given, so trailing steps of zeros count as padding"
        for name in arrays.guessed_lengths
    ]
    ignored = [*extra, *arrays.ignored]
    if ignored:
        notes.append(f"not read: {', '.join(ignored)}")
    unused = len(arrays.modalities["audio"]) - num_rows
    if unused:
        notes.append(f"{unused} utterances of the feature file are not in the table")
    return notes
