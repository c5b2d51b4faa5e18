"""Evaluation of one frozen run under many missing conditions: one pass against one by one.

``plain`` is what one condition costs by itself: every batch through the whole model, factual and
counterfactual, in stored order. ``one pass`` is what ``evaluate`` does. Everything predicts the
validation and the test split and computes rows; what is written is removed before each repetition.
``loading per rate`` builds model and store anew for each rate, as the published code does, but
through this project's mapped store.
``published`` predicts in the form of ``tests/reference``, fully padded; per rate it also builds the
model anew and unpickles the corpus, as the published code does. The pickle has no BERT vectors,
which published ones have: reading it takes less time than it would.
``command`` is the wall time of ``evaluate`` as a user types it, in a process of its own; with
``--encoder none`` the encoder is left out there too (``evaluate_without_encoder.py``).
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import measuring
import numpy as np
import specs
from measuring import Report, interleaved, paired_ratio, spread, text_of
from plain_forms import plain_encoder_in, plain_predict

from cider.data.export import export_corpus
from cider.training.evaluation import Masks
from cider_platform.layout import RunFolder
from cider_platform.runs.assembly import Runtime, batch_source, resolve
from cider_platform.runs.conditions import conditions_of, full_conditions
from cider_platform.runs.evaluation import RunEvaluator
from cider_platform.runs.predictions import Answers
from cider_platform.runs.scoring import score
from cider_platform.runs.trial import train_run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cider.condition import Condition

PLAIN, SINGLE, RATES, FULL = "plain", "one pass, 1 condition", "one pass, rates", "one pass, full"
LOOP, LOADING = "plain, rate by rate", "plain, loading per rate"
PUBLISHED, PUBLISHED_LOOP = "published, 1 condition", "published, loading per rate"
COMMAND, COMMAND_FULL = "command, 1 condition", "command, full"


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    corpora.add_options(parser, "mosi")
    specs.add_options(parser)
    parser.add_argument("--rates", type=int, default=11, help="missing rates from 0 to 1")
    parser.add_argument("--protocol", default="rmfm", help="of the evaluation of rates alone")
    parser.add_argument("--rows", type=int, nargs=3, default=(256, 128, 384), help="of each split")
    parser.add_argument("--memory", type=int, default=512, help="MiB of rows read together")
    parser.add_argument("--no-loops", action="store_true", help="leave out both loops over rates")
    parser.add_argument("--published", action="store_true", help="time the published form as well")
    parser.add_argument("--commands", action="store_true", help="time the command line as well")
    parser.add_argument("--only-commands", action="store_true", help="those and plain, no passes")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser


class Bench:
    """A frozen run, trained for one epoch, whose evaluation is done again and again."""

    def __init__(self, args: argparse.Namespace, root: Path) -> None:
        rows = dict(zip(("train", "valid", "test"), args.rows, strict=True))
        stored = corpora.write_corpus(root, args, rows)
        self.runtime = Runtime(root, root / "results", memory_mib=args.memory)
        spec = resolve(specs.run_spec(args, epochs=1), self.runtime)
        for _ in train_run(spec, self.runtime):
            measuring.progress("trained for one epoch")
        self.folder = RunFolder.of(self.runtime.results, spec.run_id)
        self.leaves_encoder_out = args.encoder == "none"
        self.evaluator = self.load()
        rates = np.linspace(0, 1, args.rates).round(6).tolist()
        self.rates = conditions_of(args.protocol, rates)
        self.full = full_conditions("unaligned", rates)
        self.pickle = root / "corpus.pkl"
        export_corpus(stored, self.pickle)

    def load(self) -> RunEvaluator:
        evaluator = RunEvaluator(self.folder, self.runtime)
        run, _ = evaluator._load()
        if self.leaves_encoder_out:
            specs.leave_encoder_out(run.model)
        return evaluator

    def one_pass(self, conditions: list[Condition]) -> Callable[[int], object]:
        def evaluate(_: int) -> None:
            self.forget()
            self.evaluator.evaluate(conditions)

        return evaluate

    def plain(self, evaluator: RunEvaluator, condition: Condition) -> None:
        run, test = evaluator._load()
        answers = []
        for source in (run.valid, test):
            masks = Masks(source, condition, run.spec.missing, run.spec.seed)
            predictions = run._assembled.predictor.predict(source, masks)
            answers.append(Answers(source.split.ids, source.labels_N, predictions))
        score(run.spec, *answers)

    def loop(self, _: int) -> None:
        for condition in self.rates:
            self.plain(self.evaluator, condition)

    def loading(self, _: int) -> None:
        for condition in self.rates:
            self.plain(self.load(), condition)

    def published(self, evaluator: RunEvaluator, condition: Condition) -> None:
        run, _ = evaluator._load()
        spec = replace(run.spec, training=replace(run.spec.training, padding="full"))
        with plain_encoder_in(run.model):
            for split in ("valid", "test"):
                source = batch_source(run.store, spec, split, evaluator.permit)
                masks = Masks(source, condition, spec.missing, spec.seed)
                plain_predict(run._assembled.predictor, source, masks)

    def published_loop(self, _: int) -> None:
        for condition in self.rates:
            with self.pickle.open("rb") as file:
                pickle.load(file)
            self.published(self.load(), condition)

    def command(self, *words: str) -> Callable[[int], object]:
        script = str(Path(__file__).with_name("evaluate_without_encoder.py"))
        program = [script] if self.leaves_encoder_out else ["-m", "cider_platform"]

        def type_it(_: int) -> None:
            self.forget()
            roots = f"{measuring.ROOT}{os.pathsep}{measuring.ROOT / 'platform'}"
            where = [f"--store={self.runtime.store}", f"--results={self.runtime.results}"]
            subprocess.run(
                [
                    *(sys.executable, *program, "evaluate", self.folder.run_id),
                    *(*words, *where, "--json"),
                ],
                env={**os.environ, "PYTHONPATH": roots},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )

        return type_it

    def forget(self) -> None:
        """Remove what evaluations have left."""
        for folder in (self.folder.evaluation, self.folder.predictions):
            shutil.rmtree(folder, ignore_errors=True)

    def distinct(self) -> dict[str, Any]:
        run, test = self.evaluator._load()
        specs.leave_encoder_out(run.model)  # counting needs none
        found = run.predict(test, self.full)
        plain = run.predict(test, conditions_of("none", []))
        return {
            "conditions": len(self.full),
            "views": 2 * len(self.full) * len(test),
            "distinct_views": found.rows,
            "distinct_texts": found.texts,
            "tokens": found.tokens,
            "tokens_of_one_condition": plain.tokens,
            "views_of_one_condition": 2 * len(test),
        }


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    bench = Bench(args, root)
    complete = conditions_of("none", [])
    forms: dict[str, Callable[[int], object]] = {
        PLAIN: lambda _: bench.plain(bench.evaluator, complete[0]),
        SINGLE: bench.one_pass(complete),
        RATES: bench.one_pass(bench.rates),
        FULL: bench.one_pass(bench.full),
    }
    if not args.no_loops:
        forms |= {LOOP: bench.loop, LOADING: bench.loading}
    if args.published:
        forms |= {
            PUBLISHED: lambda _: bench.published(bench.evaluator, complete[0]),
            PUBLISHED_LOOP: bench.published_loop,
        }
    if args.only_commands:
        forms = {PLAIN: forms[PLAIN]}
    if args.commands or args.only_commands:
        forms |= {
            COMMAND: bench.command("--missing", "none"),
            COMMAND_FULL: bench.command("--full"),
        }
    bench.plain(bench.evaluator, complete[0])  # the first pass of a process takes longer
    seconds = interleaved(forms, args.repetitions, warmup=0)
    found = {
        "distinct": bench.distinct(),  # last: nothing is predicted after it
        "seconds": {name: spread(seconds[name]) for name in forms},
        "over_command": {
            name: paired_ratio(seconds[name], seconds[COMMAND])
            for name in (COMMAND, COMMAND_FULL)
            if name in forms
        },
        "over_plain": {name: paired_ratio(seconds[name], seconds[PLAIN]) for name in forms},
    }
    found["over_one_pass_of_rates"] = {
        name: paired_ratio(seconds[name], seconds[RATES])
        for name in (LOOP, LOADING, PUBLISHED_LOOP)
        if name in forms and RATES in forms
    }
    return found


def main(argv: list[str]) -> None:
    args = options().parse_args(argv)
    if args.rates < 2:
        sys.exit(f"--rates must be at least 2, got {args.rates}")
    measuring.set_threads(args)
    report = Report("robustness_evaluation", args)
    with tempfile.TemporaryDirectory() as folder:
        report.results = found = measure(args, Path(folder))
    over = found["over_one_pass_of_rates"]
    report.table(
        f"{args.rates} rates of {args.protocol}; the full set has "
        f"{found['distinct']['conditions']} conditions: median (min-max)",
        ["form", "seconds", "over plain", "over one pass of the rates", "over the command"],
        [
            [
                name,
                text_of(found["seconds"][name], 2),
                text_of(found["over_plain"][name], 2),
                text_of(over[name], 2) if name in over else "",
                text_of(found["over_command"][name], 2) if name in found["over_command"] else "",
            ]
            for name in found["seconds"]
        ],
    )
    seen = found["distinct"]
    report.note(
        f"Test split under the full set: {seen['views']} views, {seen['distinct_views']} distinct, "
        f"with {seen['distinct_texts']} distinct texts; one condition has "
        f"{seen['views_of_one_condition']}. The encoder reads {seen['tokens']} tokens, "
        f"{seen['tokens'] / seen['tokens_of_one_condition']:.1f} times those of one condition."
    )
    report.show()


if __name__ == "__main__":
    main(sys.argv[1:])
