"""The two growing Arrow files of one split, and the rows waiting to be written to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cider.data.labels import LABEL_RANGE
from cider.data.schema import (
    FRAME_MODALITIES,
    LABEL_SCHEMA,
    Tokenizer,
    feature_file,
    feature_schema,
    label_file,
)
from cider.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cider.spec import FrameDtype

_BEYOND_HALF = 65520.0
"""Least absolute value that float16 rounds to infinity."""


@dataclass(slots=True)
class Rows:
    """Columns of equal length; the arrays are the caller's, not copies."""

    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    token_ids: list[np.ndarray] = field(default_factory=list)
    audio: list[np.ndarray] = field(default_factory=list)
    vision: list[np.ndarray] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    source_classes: list[int | None] = field(default_factory=list)
    annotations: list[str | None] = field(default_factory=list)
    audio_source_length: list[int | None] = field(default_factory=list)
    vision_source_length: list[int | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def extend(self, other: Rows) -> None:
        """Append the rows of ``other``."""
        for name in self.__dataclass_fields__:
            getattr(self, name).extend(getattr(other, name))

    def take(self, count: int) -> Rows:
        """Remove and return the first ``count`` rows."""
        taken = Rows()
        for name in self.__dataclass_fields__:
            column = getattr(self, name)
            setattr(taken, name, column[:count])
            setattr(self, name, column[count:])
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRules:
    """What every row of a split must satisfy."""

    where: str
    """Corpus and split, for messages."""
    tokenizer: Tokenizer
    widths: dict[str, int]
    limits: dict[str, int]
    """Largest length of text, audio and vision."""
    dtype: FrameDtype = "float32"
    """How frames will be stored."""

    def check(self, rows: Rows) -> None:
        """Raise ``StoreError`` for the first row that does not fit, naming it."""
        for name in rows.__dataclass_fields__:
            column = getattr(rows, name)
            if len(column) != len(rows):
                raise StoreError(f"{self.where}: {len(column)} {name} for {len(rows)} ids")
        for row, name in enumerate(rows.ids):
            where = f"{self.where}, utterance {name!r}"
            label = rows.labels[row]
            if not LABEL_RANGE[0] <= label <= LABEL_RANGE[1]:
                raise StoreError(f"{where}: the label must be in [-3, 3], got {label}")
            self._check_tokens(rows.token_ids[row], where)
            for modality in FRAME_MODALITIES:
                self._check_frames(modality, getattr(rows, modality)[row], where)

    def _check_tokens(self, ids_T: np.ndarray, where: str) -> None:
        size = self.tokenizer.vocab_size
        if ids_T.ndim != 1 or ids_T.dtype.kind not in "iu":
            raise StoreError(f"{where}: token ids must be one row of integers, got {ids_T.dtype}")
        self._check_length("text", len(ids_T), where)
        if not 0 <= ids_T.min() <= ids_T.max() < size:
            raise StoreError(
                f"{where}: token ids must be in [0, {size - 1}] (the vocabulary of "
                f"{self.tokenizer.name}), got {ids_T.min()} to {ids_T.max()}"
            )

    def _check_frames(self, modality: str, frames_SF: np.ndarray, where: str) -> None:
        width = self.widths[modality]
        if frames_SF.dtype != np.float32 or frames_SF.ndim != 2 or frames_SF.shape[1] != width:
            raise StoreError(
                f"{where}: {modality} must be float32 (steps, {width}), "
                f"got {frames_SF.dtype} {frames_SF.shape}"
            )
        self._check_length(modality, len(frames_SF), where)
        if not np.isfinite(frames_SF).all():
            raise StoreError(f"{where}: {modality} has values that are not finite")
        if self.dtype == "float16" and frames_SF.size:
            largest = float(np.abs(frames_SF).max())
            if largest >= _BEYOND_HALF:
                raise StoreError(
                    f"{where}: {modality} has the value {largest:g}, and float16 holds none beyond "
                    "65504; import the corpus as float32"
                )

    def _check_length(self, modality: str, length: int, where: str) -> None:
        if not 1 <= length <= self.limits[modality]:
            raise StoreError(
                f"{where}: {modality} must have 1 to {self.limits[modality]} steps, got {length}"
            )


class SplitFiles:
    """The two open files of one split, and its running counts."""

    def __init__(self, folder: Path, split: str, rules: RowRules) -> None:
        self.pending = Rows()
        self.labels: list[float] = []
        self.lengths: dict[str, list[int]] = {"text": [], "audio": [], "vision": []}
        self._ids: set[str] = set()
        self._rules = rules
        self._files = [
            pa.OSFile(str(folder / name), "wb") for name in (feature_file(split), label_file(split))
        ]
        self._schema = feature_schema(rules.dtype)
        self._features = pa.ipc.new_file(self._files[0], self._schema)
        self._labels = pa.ipc.new_file(self._files[1], LABEL_SCHEMA)

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, rows: Rows) -> None:
        """Check rows and let them wait; see ``write``.

        Raises:
            StoreError: if a row does not fit, or its id occurred before.
        """
        self._rules.check(rows)
        for name in rows.ids:
            if name in self._ids:
                raise StoreError(
                    f"{self._rules.where}: id {name!r} occurs twice; ids must be unique in a split"
                )
            self._ids.add(name)
        self.labels.extend(rows.labels)
        for modality, column in zip(
            self.lengths, (rows.token_ids, rows.audio, rows.vision), strict=True
        ):
            self.lengths[modality].extend(map(len, column))
        self.pending.extend(rows)

    def write(self, rows: Rows) -> None:
        """Write rows taken from ``pending`` as one record batch of each file."""
        columns = [
            pa.array(rows.ids, pa.string()),
            pa.array(rows.texts, pa.string()),
            _token_column(rows.token_ids),
            _frame_column(rows.audio, self._rules.dtype),
            _frame_column(rows.vision, self._rules.dtype),
            pa.array(rows.audio_source_length, pa.int32()),
            pa.array(rows.vision_source_length, pa.int32()),
        ]
        self._features.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        columns = [
            pa.array(rows.ids, pa.string()),
            pa.array(np.asarray(rows.labels, np.float32)),
            pa.array(rows.source_classes, pa.int8()),
            pa.array(rows.annotations, pa.string()),
        ]
        self._labels.write_batch(pa.RecordBatch.from_arrays(columns, schema=LABEL_SCHEMA))

    def close(self) -> None:
        """Write the footers and close both files."""
        for writer, file in zip((self._features, self._labels), self._files, strict=True):
            writer.close()
            file.close()


def _offsets(rows: Sequence[np.ndarray]) -> np.ndarray:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([row.size for row in rows], out=offsets[1:])
    return offsets


def _token_column(rows: Sequence[np.ndarray]) -> pa.Array:
    flat = np.concatenate(rows).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(_offsets(rows).astype(np.int32)), pa.array(flat))


def _frame_column(rows: Sequence[np.ndarray], dtype: FrameDtype) -> pa.Array:
    flat = np.concatenate([row.reshape(-1) for row in rows]).astype(dtype, copy=False)
    return pa.LargeListArray.from_arrays(pa.array(_offsets(rows)), pa.array(flat))
