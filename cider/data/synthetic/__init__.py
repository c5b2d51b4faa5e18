"""Synthetic corpora ``synthetic-mosi`` and ``synthetic-mosei``: generated, nothing to download.

Why and how they are made, and what can be reached on them: ``docs/synthetic.md``.
"""

from __future__ import annotations

from cider.data.synthetic.corpus import ensure, split_counts
from cider.data.synthetic.name import (
    DEFAULT_SCALES,
    SyntheticName,
    canonical_name,
    is_synthetic,
    parse_name,
)
from cider.data.synthetic.summary import summary

__all__ = [
    "DEFAULT_SCALES",
    "SyntheticName",
    "canonical_name",
    "ensure",
    "is_synthetic",
    "parse_name",
    "split_counts",
    "summary",
]
