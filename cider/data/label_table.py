"""Read the label files of a stored corpus, the sealed test split's included.

``FeatureStore`` guards this for training, search and evaluation. Only tools that copy a whole
corpus (export, verify, re-partition) call it directly; they neither train nor choose anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.data.arrow_file import open_batches
from cider.data.schema import LABEL_SCHEMA, label_file

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The label columns of one split, in its row order; N rows."""

    ids: list[str]
    labels: np.ndarray
    """float32 (N,) in [-3, 3]."""
    source_classes: list[int | None]
    annotations: list[str | None]


def read_label_table(folder: Path, split: str) -> LabelTable:
    """Return the labels of one split.

    Raises:
        StoreError: if the file is absent or damaged.
    """
    table = LabelTable([], np.empty(0, np.float32), [], [])
    pieces = []
    for batch in open_batches(folder / label_file(split), LABEL_SCHEMA):
        table.ids.extend(batch.column("id").to_pylist())
        table.source_classes.extend(batch.column("source_class").to_pylist())
        table.annotations.extend(batch.column("annotation").to_pylist())
        pieces.append(batch.column("label").to_numpy(zero_copy_only=False))
    # A copy: the pieces are views of the mapped file.
    labels_N = np.concatenate(pieces).astype(np.float32) if pieces else table.labels
    return LabelTable(table.ids, labels_N, table.source_classes, table.annotations)
