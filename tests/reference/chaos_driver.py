"""Drive one study in a process of its own: ``python chaos_driver.py '<json of Options>'``.

Prints the study's trials as JSON; errors end it as they end the command line.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cider.errors import CiderError
from cider.models.cider.config import Config
from cider.spec import DataConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.execution.capacity import choose_slots
from cider_platform.output import fail
from cider_platform.runs.assembly import Runtime
from cider_platform.search.driver import Plan, drive
from cider_platform.search.pruning import pruner_definition
from cider_platform.search.space import parse_axis
from cider_platform.search.starts import start
from cider_platform.search.storage import Storage

SPACE = ("loss.joint=float:0:1:0.25", "optimizer.lr=log:1e-4:1e-1")


@dataclass(frozen=True)
class Options:
    """What a driver is told."""

    root: str
    study: str
    total: int
    epochs: int = 9
    slots: int = 1
    checkpoint_every: int = 1
    real: bool = False
    sampler: str = "tpe"
    space: list = field(default_factory=lambda: list(SPACE))
    pruner: bool = True
    progress_timeout: float = 1800.0
    workers: int = 1
    starts: list = field(default_factory=list)
    dropout: float = 0.1
    storage: str = ""


class Listener:
    """Writes what happens to stderr, one line each."""

    def begin(self, trials, total):
        print(f"begin {len(trials)} of {total}", file=sys.stderr, flush=True)

    def change(self, change):
        print(f"trial {change.number} {change.state} epoch {change.epoch} {change.error}",
              file=sys.stderr, flush=True)  # fmt: skip


def spec_of(options):
    """Return the base spec; of a size that a real training needs milliseconds for."""
    return RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(
            width=8,
            heads=2,
            layers=1,
            **{
                f"{name}_dropout": options.dropout
                for name in ("attention", "embedding", "output", "relu", "residual")
            },
        ),
        text_encoder=TextEncoderConfig(
            width=8, layers=1, source="scratch", dropout=options.dropout
        ),
        training=TrainingConfig(epochs=options.epochs, batch_size=12, patience=options.epochs),
    )


def runtime_of(options, results="results"):
    root = Path(options.root)
    return Runtime(
        root / "store", root / results, threads=1, checkpoint_every=options.checkpoint_every
    )


def plan_of(options, spec):
    space = tuple(parse_axis(text) for text in options.space)
    return Plan(
        study=options.study,
        storage=Storage.parse(options.storage) if options.storage else None,
        spec=spec,
        space=space,
        starts=tuple(start(values, space) for values in options.starts),
        total=options.total,
        sampler=options.sampler,
        pruner=pruner_definition("asha", options.epochs) if options.pruner else {"name": "none"},
        slots=choose_slots("cpu", slots=options.slots, workers=options.workers),
        progress_timeout=options.progress_timeout,
    )


def row(trial):
    """Return a trial as JSON values, without the time it took, which no two runs share."""
    return {name: value for name, value in asdict(trial).items() if name != "seconds"}


def train_of(options):
    """Return the training function and the spec it trains."""
    from chaos_training import train

    from cider_platform.runs.trial import resolve, train_run

    spec = spec_of(options)
    return (train_run, resolve(spec, runtime_of(options))) if options.real else (train, spec)


def main():
    options = Options(**json.loads(sys.argv[1]))
    try:
        train, spec = train_of(options)
        outcome = drive(
            plan_of(options, spec), runtime_of(options), train=train,
            resolve=lambda each, _: each, listener=Listener(),
        )  # fmt: skip
    except CiderError as error:
        fail(str(error))
        sys.exit(error.exit_code)
    if outcome.signal_number is not None:
        sys.exit(128 + outcome.signal_number)
    print(json.dumps([row(trial) for trial in outcome.trials]))


if __name__ == "__main__":
    main()
