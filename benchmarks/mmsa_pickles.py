"""Feature files as the MMSA project writes them, of any size, written one array at a time.

Shapes: N utterances, S padded frames, F feature width.
"""

from __future__ import annotations

import builtins
import bz2
import gzip
import lzma
import pickle
from typing import TYPE_CHECKING, Any

import corpora
import numpy as np

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

TEXT_FEATURES = 768
"""Width of the BERT features under the key ``text``, which real files have and no import keeps."""
COMPRESSIONS = {
    "gzip": (gzip, {"compresslevel": 1}),
    "bz2": (bz2, {"compresslevel": 1}),
    "xz": (lzma, {"preset": 0}),
}
_DRAWN_ROWS = 64


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a file, beside those of ``corpora``."""
    parser.add_argument("--rows", type=int, default=2000, help="utterances of all splits")
    parser.add_argument(
        "--source-dtype", choices=["float32", "float64"], default="float32", help="of the frames"
    )
    parser.add_argument("--protocol", type=int, default=4, help="of the pickle")
    parser.add_argument("--compression", choices=["none", *COMPRESSIONS], default="none")


class _Made:
    """Stands for an array that is made when it is written, and not kept."""

    largest_bytes = 0

    def __init__(self, make: Callable[[], np.ndarray]) -> None:
        self._make = make

    def __reduce_ex__(self, protocol: int) -> Any:
        array = self._make()
        _Made.largest_bytes = max(_Made.largest_bytes, array.nbytes)
        return array.__reduce_ex__(protocol)


def write_pickle(path: Path, args: argparse.Namespace) -> int:
    """Write a feature file and return the bytes of its largest array."""
    rng = np.random.default_rng(args.seed)
    lengths = corpora.Lengths(args)
    counts = lengths.facts.counts
    content = {
        split: _split(max(2, round(args.rows * count / sum(counts))), split, lengths, args, rng)
        for split, count in zip(("train", "valid", "test"), counts, strict=True)
    }
    _Made.largest_bytes = 0
    module, options = COMPRESSIONS.get(args.compression, (builtins, {}))
    with module.open(path, "wb", **options) as file:
        pickler = pickle.Pickler(file, protocol=args.protocol)
        pickler.fast = True  # Keeps nothing of what is written.
        pickler.dump(content)
    return _Made.largest_bytes


def _split(
    count: int,
    split: str,
    lengths: corpora.Lengths,
    args: argparse.Namespace,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return one split, padded with zeros; its frames are drawn when they are written."""
    drawn = lengths.draw(count, rng)
    text_bert_N3T = np.zeros((count, 3, lengths.longest["text"]), np.float32)
    for row, text in enumerate(drawn.text):
        text_bert_N3T[row, 0, :text] = corpora.words(int(text), rng)
        text_bert_N3T[row, 1, :text] = 1

    def frames(name: str) -> _Made:
        shape = (count, lengths.longest[name], lengths.facts.widths[name])
        return _Made(lambda: _padded(shape, getattr(drawn, name), args.source_dtype, rng))

    def text() -> np.ndarray:
        # Never read but for the file's hash: a few rows again and again will do.
        shape = (lengths.longest["text"], TEXT_FEATURES)
        drawn_rows = rng.standard_normal((_DRAWN_ROWS, *shape), np.float32)
        return np.resize(drawn_rows, (count, *shape))

    labels_N = corpora.labels(count, rng)
    classes_N = np.sign(labels_N).astype(np.int64) + 1
    return {
        "raw_text": np.array([f"utterance {row}" for row in range(count)], object),
        "id": [f"{split}$_${row}" for row in range(count)],
        "audio": frames("audio"),
        "vision": frames("vision"),
        "text": _Made(text),
        "text_bert": text_bert_N3T,
        "annotations": [("Negative", "Neutral", "Positive")[number] for number in classes_N],
        "classification_labels": classes_N,
        "regression_labels": labels_N,
        "audio_lengths": drawn.audio.tolist(),
        "vision_lengths": drawn.vision.tolist(),
    }


def _padded(
    shape: tuple[int, int, int], lengths_N: np.ndarray, dtype: str, rng: np.random.Generator
) -> np.ndarray:
    frames_NSF = np.zeros(shape, dtype)
    for row, steps in enumerate(lengths_N):
        frames_NSF[row, :steps] = rng.standard_normal((steps, shape[2]), np.float32)
    return frames_NSF
