"""What the benchmarks run on: stored corpora of published shapes with random content.

Widths and padded lengths are those of CMU-MOSI and CMU-MOSEI. Words per utterance come from a file
of real transcripts, or from a log-normal distribution fitted to them
(``cider/data/synthetic/facts.py``). Frames per word are assumed, see ``FRAMES_PER_WORD``. Words and
frames mean nothing: speed does not depend on them.

Shapes: N utterances, T text steps, S frames, F feature width.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from cider.data.schema import StoreKey, Tokenizer
from cider.data.synthetic.facts import CORPORA
from cider.data.writer import StoreWriter
from cider.modality import PerModality

if TYPE_CHECKING:
    import argparse

    from cider.spec import Alignment

VOCABULARY = 30522
"""Of BERT-base, so that embeddings have their real size."""
SPECIAL_TOKENS = 2
FRAMES_PER_WORD = {
    "mosi": {"audio": 4.0, "vision": 5.0},
    "mosei": {"audio": 4.0, "vision": 3.0},
}
"""Assumed for unaligned data: no lengths of real recordings are at hand; see ``--frame-factor``."""
LENGTH_SPREAD = 0.3
"""Assumed standard deviation of the logarithm of frames per word."""
DATASET = "speed"
_FIRST_WORD = 1000
_BLOCK = 256


def add_options(parser: argparse.ArgumentParser, corpus: str) -> None:
    """Add the options that describe a corpus."""
    parser.add_argument("--corpus", choices=list(CORPORA), default=corpus, help="whose shapes")
    parser.add_argument(
        "--lengths-from",
        type=Path,
        metavar="FILE",
        help="parquet or CSV file with a column text: words per utterance are counted in it",
    )
    parser.add_argument(
        "--frame-factor",
        type=float,
        default=1.0,
        help="multiplies the assumed frames per word of unaligned data",
    )


class Lengths:
    """Draws the numbers of tokens and frames of utterances.

    Args:
        args: the options of ``add_options``.
        alignment: in aligned data every token has one frame.
    """

    def __init__(self, args: argparse.Namespace, alignment: Alignment = "unaligned") -> None:
        self.facts = CORPORA[args.corpus]
        self.alignment = alignment
        self.longest = self.facts.max_lengths
        if alignment == "aligned":
            self.longest = dict.fromkeys(self.longest, self.longest["text"])
        self._frames_per_word = {
            name: count * args.frame_factor for name, count in FRAMES_PER_WORD[args.corpus].items()
        }
        self._transcripts_N = None if args.lengths_from is None else count_words(args.lengths_from)

    def draw(self, count: int, rng: np.random.Generator) -> PerModality[np.ndarray]:
        """Return int64 (N,) per modality; text counts its two special tokens."""
        if self._transcripts_N is None:
            normal_N = rng.standard_normal(count)
            words_N = np.exp(self.facts.words_log_mean + self.facts.words_log_std * normal_N)
        else:
            words_N = np.resize(rng.permutation(self._transcripts_N), count)
        words_N = np.clip(np.rint(words_N), 1, self.longest["text"] - SPECIAL_TOKENS)
        text_N = words_N.astype(np.int64) + SPECIAL_TOKENS
        if self.alignment == "aligned":
            return PerModality(text_N, text_N, text_N)
        return PerModality(
            text_N, self._frames("audio", words_N, rng), self._frames("vision", words_N, rng)
        )

    def _frames(self, name: str, words_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pace_N = np.exp(LENGTH_SPREAD * rng.standard_normal(len(words_N)))
        frames_N = np.rint(words_N * self._frames_per_word[name] * pace_N)
        return np.clip(frames_N, 1, self.longest[name]).astype(np.int64)


def count_words(path: Path) -> np.ndarray:
    """Return how many words every transcript of a file has, int64 (N,)."""
    try:
        if path.suffix == ".parquet":
            texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
        else:
            with path.open(encoding="utf-8", newline="") as file:
                texts = [row["text"] for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"{path} must be a parquet or CSV file with a column text, got {error!r}")
    return np.array([len(str(text).split()) for text in texts], dtype=np.int64)


def write_corpus(
    root: Path,
    args: argparse.Namespace,
    counts: dict[str, int],
    alignment: Alignment = "unaligned",
) -> Path:
    """Store a corpus named ``speed`` and return its folder.

    Args:
        root: the store's root folder.
        args: the options of ``add_options``, and ``seed``.
        counts: utterances of train, valid and test.
        alignment: unaligned or aligned.
    """
    rng = np.random.default_rng(args.seed)
    lengths = Lengths(args, alignment)
    key = StoreKey(dataset=DATASET, alignment=alignment, distribution="iid")
    with StoreWriter(
        root,
        key,
        tokenizer=Tokenizer(name="synthetic", vocab_size=VOCABULARY),
        widths=lengths.facts.widths,
        max_lengths=lengths.longest,
        source={"format": "generated", "file": "", "sha256": "", "bytes": 0},
        default_encoder="scratch",
        synthetic=True,
    ) as writer:
        for split, count in counts.items():
            for start in range(0, count, _BLOCK):
                rows = min(_BLOCK, count - start)
                ids = [f"{split}-{start + row}" for row in range(rows)]
                writer.add(split, ids, *_rows(rows, lengths, rng))
        writer.finish()
    return key.folder(root)


def _rows(count: int, lengths: Lengths, rng: np.random.Generator) -> tuple:
    drawn = lengths.draw(count, rng)
    token_ids = [words(int(length), rng) for length in drawn.text]
    widths = lengths.facts.widths
    audio, vision = (
        [
            rng.standard_normal((int(length), widths[name]), np.float32)
            for length in getattr(drawn, name)
        ]
        for name in ("audio", "vision")
    )
    texts = [" ".join(map(str, ids[1:-1])) for ids in token_ids]
    return texts, token_ids, audio, vision, labels(count, rng)


def words(length: int, rng: np.random.Generator) -> np.ndarray:
    """Return token ids int32 (T,) between a start and an end token, few of them frequent."""
    inner = rng.zipf(1.3, length - SPECIAL_TOKENS) % (VOCABULARY - _FIRST_WORD) + _FIRST_WORD
    return np.array([101, *inner, 102], dtype=np.int32)


def labels(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return regression labels float32 (N,), thirds in [-3, 3]."""
    return (rng.integers(-9, 10, count) / 3).astype(np.float32)
