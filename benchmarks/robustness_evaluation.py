"""Evaluation of one frozen run at many missing rates: the loop over rates as `evaluate` runs it.

``one evaluator`` is that loop: model and store are loaded once. ``loading per rate`` loads
everything anew for each rate, as the published code does, but through this project's mapped store.
Every rate predicts the validation and the test split, factual and counterfactual; rows and
predictions are written as usual.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import measuring
import numpy as np
import specs
from measuring import Report, interleaved, paired_ratio, scaled, spread, text_of

from cider_platform.assembly import Runtime, resolve
from cider_platform.evaluation import conditions_of, evaluate_run
from cider_platform.layout import RunFolder
from cider_platform.trial import train_run

if TYPE_CHECKING:
    import argparse

    from cider.condition import Condition

FORMS = ("one evaluator", "loading per rate")


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    corpora.add_options(parser, "mosi")
    specs.add_options(parser)
    parser.add_argument("--rates", type=int, default=11, help="missing rates from 0 to 1")
    parser.add_argument("--protocol", default="rmfm")
    parser.add_argument("--rows", type=int, nargs=3, default=(256, 128, 384), help="of each split")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser


class Bench:
    """A frozen run, trained for one epoch, whose evaluation is done again and again."""

    def __init__(self, args: argparse.Namespace, root: Path) -> None:
        rows = dict(zip(("train", "valid", "test"), args.rows, strict=True))
        corpora.write_corpus(root, args, rows)
        self.runtime = Runtime(root, root / "results")
        spec = resolve(specs.run_spec(args, epochs=1), self.runtime)
        for _ in train_run(spec, self.runtime):
            measuring.progress("trained for one epoch")
        self.folder = RunFolder.of(self.runtime.results, spec.run_id)
        rates = np.linspace(0, 1, args.rates).round(6)
        self.conditions = conditions_of(args.protocol, rates.tolist())
        self.row_seconds: list[list[float]] = []

    def _evaluate(self, conditions: list[Condition]) -> None:
        times = [time.perf_counter()]
        evaluate_run(
            self.folder, self.runtime, conditions, lambda _: times.append(time.perf_counter())
        )
        self.row_seconds.append([after - before for before, after in pairwise(times)])

    def _forget(self) -> None:
        """Remove the rows of an earlier evaluation, which would be read instead of computed."""
        for condition in self.conditions:
            name = f"test-{condition.protocol}-{condition.kept or f'{condition.rate:g}'}"
            self.folder.evaluation_file(name).unlink(missing_ok=True)

    def at_once(self, _: int) -> None:
        self._forget()
        self._evaluate(self.conditions)

    def one_by_one(self, _: int) -> None:
        self._forget()
        for condition in self.conditions:
            self._evaluate([condition])


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    bench = Bench(args, root)
    forms = dict(zip(FORMS, (bench.at_once, bench.one_by_one), strict=True))
    seconds = interleaved(forms, args.repetitions, warmup=0)
    count = len(bench.conditions)
    looped = [rows for rows in bench.row_seconds if len(rows) == count and count > 1]
    return {
        "conditions": [str(condition) for condition in bench.conditions],
        "seconds": {name: spread(seconds[name]) for name in FORMS},
        "seconds_per_rate": {name: spread(scaled(seconds[name], 1 / count)) for name in FORMS},
        "loading_over_one": paired_ratio(seconds[FORMS[1]], seconds[FORMS[0]]),
        # The first rate of a loop pays for loading.
        "first_rate_seconds": spread([rows[0] for rows in looped]),
        "later_rate_seconds": spread([each for rows in looped for each in rows[1:]]),
    }


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    if args.rates < 2:
        sys.exit(f"--rates must be at least 2, got {args.rates}")
    measuring.set_threads(args)
    report = Report("robustness_evaluation", args)
    with tempfile.TemporaryDirectory() as folder:
        report.results = found = measure(args, Path(folder))
    report.table(
        f"{len(found['conditions'])} conditions of {args.protocol}, seconds: median (min-max)",
        ["form", "all", "per rate"],
        [
            [name, *(text_of(found[key][name], 2) for key in ("seconds", "seconds_per_rate"))]
            for name in FORMS
        ],
    )
    report.note(
        f"Loading per rate / one evaluator: {text_of(found['loading_over_one'], 2)}. In the loop "
        f"the first rate takes {text_of(found['first_rate_seconds'], 2)} s, a later one "
        f"{text_of(found['later_rate_seconds'], 2)} s."
    )
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
