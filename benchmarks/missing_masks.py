"""Cost of drawing the training masks of one batch, by missing protocol.

``one draw`` is a floor: a rate per utterance and one uniform table per modality for the whole
batch, from one generator. Its numbers would depend on batch and padding, which training masks must
not.

Shapes: B batch, T padded steps of a modality.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import corpora
import measuring
import numpy as np
from measuring import Report, interleaved, paired_ratio, scaled, spread, text_of

from cider.missing import names, training_masks
from cider.spec import MissingConfig

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cider.modality import PerModality

ONE_DRAW = "one draw"
NEED_ALIGNED = ("tmfm", "stmfm")


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    corpora.add_options(parser, "mosei")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=8, help="batches per repetition")
    parser.add_argument("--repetitions", type=int, default=15)
    return parser


class Batches:
    """Lengths of a few batches and what they are padded to."""

    def __init__(self, args: argparse.Namespace, alignment: str) -> None:
        lengths = corpora.Lengths(args, alignment)
        rng = np.random.default_rng(args.seed)
        self.seed = args.seed
        self.lengths = [lengths.draw(args.batch_size, rng) for _ in range(args.batches)]
        self.pad_to = [drawn.map(lambda lengths_B: int(lengths_B.max())) for drawn in self.lengths]
        self.index = [
            np.arange(args.batch_size) + number * args.batch_size for number in range(args.batches)
        ]

    def draw(self, protocol: str, epoch: int) -> None:
        """Draw every batch's masks as the trainer does."""
        config = MissingConfig(protocol=protocol, kept="LA" if protocol == "smm" else "")
        for lengths, index_B, pad_to in zip(self.lengths, self.index, self.pad_to, strict=True):
            training_masks(config, lengths, index_B, seed=self.seed, epoch=epoch, pad_to=pad_to)

    def draw_at_once(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        for lengths, pad_to in zip(self.lengths, self.pad_to, strict=True):
            _one_draw(lengths, pad_to, rng)


def _one_draw(
    lengths: PerModality[np.ndarray], pad_to: PerModality[int], rng: np.random.Generator
) -> PerModality[np.ndarray]:
    rate_B1 = rng.random((len(lengths.text), 1))

    def observed(lengths_B: np.ndarray, steps: int) -> np.ndarray:
        valid_BT = np.arange(steps) < lengths_B[:, None]
        return (rng.random((len(lengths_B), steps)) > rate_B1) & valid_BT

    return lengths.zip_map(pad_to, observed)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    unaligned, aligned = Batches(args, "unaligned"), Batches(args, "aligned")

    def form(protocol: str) -> Callable[[int], object]:
        batches = aligned if protocol in NEED_ALIGNED else unaligned
        return lambda repetition: batches.draw(protocol, repetition + 1)

    forms = {protocol: form(protocol) for protocol in names()}
    forms[ONE_DRAW] = unaligned.draw_at_once
    seconds = interleaved(forms, args.repetitions)
    return {
        name: {
            "milliseconds_per_batch": spread(scaled(values, 1e3 / args.batches)),
            "over_one_draw": paired_ratio(values, seconds[ONE_DRAW]),
        }
        for name, values in seconds.items()
    }


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    report = Report("missing_masks", args)
    report.results = measure(args)
    report.table(
        "Training masks of one batch: median (min-max)",
        ["protocol", "lengths", "milliseconds", "/ one draw", "microseconds per utterance"],
        [
            [
                name,
                "aligned" if name in NEED_ALIGNED else "unaligned",
                text_of(found["milliseconds_per_batch"], 2),
                text_of(found["over_one_draw"], 2),
                f"{1e3 * found['milliseconds_per_batch']['median'] / args.batch_size:.1f}",
            ]
            for name, found in report.results.items()
        ],
    )
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
