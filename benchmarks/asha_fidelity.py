"""What stopping trials early costs: ASHA beside the full search over the same configurations.

The full search trains every configuration to its last epoch. ASHA then searches the same
configurations through the same code, fed with the epochs that were just recorded: training is
deterministic, so this is what it would have done, one trial at a time.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import TYPE_CHECKING

import measuring
import optuna
from measuring import Report, progress, set_threads

from cider.data.synthetic import canonical_name
from cider.models.cider.config import Config
from cider.spec import DataConfig, RunSpec, SelectionConfig, TextEncoderConfig, TrainingConfig
from cider_platform.runs.assembly import Runtime, open_store, resolve
from cider_platform.runs.trial import train_run
from cider_platform.search.ledger import Ledger
from cider_platform.search.pruning import pruner_definition
from cider_platform.search.search import Report as Said
from cider_platform.search.search import Search
from cider_platform.search.space import read_space
from cider_platform.search.study import define

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping

    from cider_platform.search.ledger import TrialRecord

SPACE = [
    "optimizer.lr=log:1e-4:1e-2",
    "model.layers=int:1:2",
    "model.output_dropout=float:0:0.5",
    "loss.joint=float:0:1",
]


def options() -> argparse.ArgumentParser:
    parser = measuring.parser(__doc__)
    parser.add_argument("--dataset", default="synthetic-mosi")
    parser.add_argument("--scale", type=float, default=1.0, help="of the corpus")
    parser.add_argument("--alignment", default="aligned", help="aligned has shorter sequences")
    parser.add_argument("--trials", type=int, default=27)
    parser.add_argument("--epochs", type=int, default=16, help="of a whole training")
    parser.add_argument("--studies", type=int, default=2, help="searches with seeds of their own")
    return parser


@dataclass(frozen=True)
class Outcome:
    """What a search found, and what it spent."""

    trials: list[TrialRecord]

    @property
    def epochs(self) -> int:
        return sum(trial.epochs for trial in self.trials)

    @property
    def best(self) -> TrialRecord:
        whole = [trial for trial in self.trials if trial.state == "COMPLETE"]
        return max(whole, key=lambda trial: trial.value)


def search(
    spec: RunSpec,
    pruner: Mapping[str, object],
    total: int,
    results: Path,
    epochs_of: Callable[[RunSpec], Iterable],
) -> Outcome:
    """Search with random draws, one trial at a time; ``epochs_of`` yields a trial's epochs."""
    definition = define(spec, read_space(SPACE, spec, []), sampler="random", pruner=pruner)
    ledger = Ledger(optuna.storages.InMemoryStorage(), "study", definition)
    decisions = Search(
        ledger, spec, total=total, results=results, resolve=lambda each: each,
        listener=lambda _: None,
    )  # fmt: skip
    while (job := decisions.next_job()) is not None:
        history = []
        for result in epochs_of(job.spec):
            history = [(result.epoch, result.best_score)]
            is_last = result.epoch == spec.training.epochs
            if decisions.on_report(job.number, Said(history=history, is_last=is_last)):
                break
        else:
            decisions.on_report(job.number, Said(history=history, is_finished=True))
            progress(f"trial {job.number}: {history[-1][1]:.4f}")
    return Outcome(ledger.trials())


class Recorder:
    """Trains for real, and remembers every run's epochs."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.epochs: dict[str, list[SimpleNamespace]] = {}

    def train(self, spec: RunSpec) -> Iterable:
        kept = self.epochs.setdefault(spec.run_id, [])
        for result in train_run(spec, self.runtime):
            kept.append(SimpleNamespace(epoch=result.epoch, best_score=result.best_score))
            yield kept[-1]

    def replay(self, spec: RunSpec) -> Iterable:
        return iter(self.epochs[spec.run_id])


def base_spec(args: argparse.Namespace) -> RunSpec:
    return RunSpec(
        data=DataConfig(
            dataset=canonical_name(args.dataset, scale=args.scale), alignment=args.alignment
        ),
        model=Config(layers=1, heads=4),
        text_encoder=TextEncoderConfig(width=32, source="scratch"),
        training=TrainingConfig(
            epochs=args.epochs, patience=args.epochs, batch_size=32, batching="bucketed"
        ),
        selection=SelectionConfig(rates=(0.0,)),
    )


def measure(args: argparse.Namespace, root: Path) -> Report:
    report = Report("asha_fidelity", args)
    runtime = Runtime(root / "store", root / "results", threads=args.threads)
    rows = []
    for number in range(args.studies):
        spec = resolve(replace(base_spec(args), seed=args.seed + number), runtime)
        count = open_store(spec, runtime).manifest.counts["valid"]
        recorder = Recorder(runtime)
        nothing = pruner_definition("none", args.epochs)
        full = search(spec, nothing, args.trials, runtime.results, recorder.train)
        asha = search(
            spec, pruner_definition("asha", args.epochs), args.trials, root / "replayed",
            recorder.replay,
        )  # fmt: skip
        best, found = full.best, asha.best
        error = math.sqrt(best.value * (1 - best.value) / count)
        rows.append(
            {
                "seed": spec.seed,
                "trials": args.trials,
                "epochs": [full.epochs, asha.epochs],
                "share": asha.epochs / full.epochs,
                "best": [best.value, found.value],
                "behind": best.value - found.value,
                "standard_error": error,
                "spread": stdev(trial.value for trial in full.trials),
                "mean": mean(trial.value for trial in full.trials),
                "complete": sum(trial.state == "COMPLETE" for trial in asha.trials),
                "valid_utterances": count,
            }
        )
    report.results["studies"] = rows
    report.table(
        f"{spec.selection_metric} on validation, best of each search; one standard error is "
        "binomial, of the full search's best over the validation utterances",
        ["seed", "epochs, full", "epochs, ASHA", "share", "best, full", "best, ASHA", "behind",
         "standard error", "mean (SD) of all trials"],
        [
            [
                str(row["seed"]), *map(str, row["epochs"]), f"{row['share']:.2f}",
                *(f"{value:.4f}" for value in row["best"]), f"{row['behind']:.4f}",
                f"{row['standard_error']:.4f}", f"{row['mean']:.4f} ({row['spread']:.4f})",
            ]
            for row in rows
        ],
    )  # fmt: skip
    return report


def main(arguments: list[str] | None = None) -> None:
    args = options().parse_args(arguments)
    set_threads(args)
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder)).show()


if __name__ == "__main__":
    main()
