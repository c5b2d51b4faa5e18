"""A hash of what a corpus holds, not of how its files lay it out.

Covered: ids, token ids, frames and labels of every row in order; widths, padded lengths and special
token ids, because models and masks depend on them. Not covered: text (only its token ids reach a
model), source classes and annotations, names, record batches.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from cider.config import canonical_json
from cider.spec import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider.data.schema import Tokenizer

_COLUMNS = ("id", "token_ids", "audio", "vision", "label")


class ContentHash:
    """Accumulates the rows of a corpus, split by split, in any number of pieces."""

    def __init__(self) -> None:
        self._digests: dict[str, dict[str, hashlib._Hash]] = {
            split: {column: hashlib.sha256() for column in _COLUMNS} for split in SPLITS
        }

    def add(
        self,
        split: str,
        ids: Sequence[str],
        token_ids: Sequence[np.ndarray],
        audio: Sequence[np.ndarray],
        vision: Sequence[np.ndarray],
        labels_N: np.ndarray,
    ) -> None:
        """Add the next rows of a split."""
        digests = self._digests[split]
        for name in ids:
            encoded = name.encode()
            digests["id"].update(len(encoded).to_bytes(8, "little") + encoded)
        for column, rows, kind in (
            ("token_ids", token_ids, "<i4"),
            ("audio", audio, "<f4"),
            ("vision", vision, "<f4"),
        ):
            for row in rows:
                digests[column].update(len(row).to_bytes(8, "little"))
                digests[column].update(np.ascontiguousarray(row, dtype=kind).reshape(-1).data)
        digests["label"].update(np.ascontiguousarray(labels_N, dtype="<f4").data)

    def hexdigest(
        self,
        *,
        widths: dict[str, int],
        max_lengths: dict[str, int],
        split_max_lengths: dict[str, dict[str, int]],
        tokenizer: Tokenizer,
    ) -> str:
        """Return 64 hexadecimal digits over everything added and the corpus's shape."""
        facts = {
            "widths": widths,
            "max_lengths": max_lengths,
            "split_max_lengths": split_max_lengths,
            "vocab_size": tokenizer.vocab_size,
            "special_ids": tokenizer.special_ids,
            "columns": {
                split: {name: digest.hexdigest() for name, digest in columns.items()}
                for split, columns in self._digests.items()
            },
        }
        return hashlib.sha256(canonical_json(facts).encode()).hexdigest()
