"""Evaluate a frozen run under missing data: the one place where test labels are read.

All conditions (protocol and rate, or protocol and kept set) that were not evaluated before are
evaluated together, in one pass over the validation and one over the test split. For every condition
tau is chosen on the validation split under that same condition, then applied once to the test
split. Predictions are stored beside the metrics, so whatever else is asked of them needs no model;
a condition that was evaluated is never evaluated again.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cider.data.seal import TestPermit, permit_for_frozen_run
from cider.spec import RunSpec
from cider.training.checkpoint import load_weights
from cider.training.robustness import SplitMasks, SplitPredictions, predict_conditions
from cider_platform.fields import areas
from cider_platform.layout import read_json, write_json_atomic
from cider_platform.runs.assembly import Assembled, Runtime, assemble, batch_source, open_store
from cider_platform.runs.conditions import conditions_of, evaluation_name
from cider_platform.runs.predictions import Answers, write_predictions
from cider_platform.runs.scoring import honest_tau, metrics_of, score
from cider_platform.runs.trial import best_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cider.condition import Condition
    from cider.data.loader import BatchSource
    from cider.data.statistics import TrainingStatistics
    from cider.data.store import FeatureStore
    from cider.training.evaluation import Predictions, Predictor
    from cider_platform.layout import RunFolder
    from cider_platform.search.objectives import Objective

    Advance = Callable[[str, int, int], None]
    """Told what is being done, how much of it is done, and of how much."""


class FrozenRun:
    """A frozen run's model and its validation split; nothing of the test split is read.

    Args:
        folder: the run's folder.
        runtime: where and how to execute.
    """

    def __init__(self, folder: RunFolder, runtime: Runtime) -> None:
        self.spec = RunSpec.from_dict(read_json(folder.spec))
        self.memory_mib = runtime.memory_mib
        self.store: FeatureStore = open_store(self.spec, runtime)
        self._assembled: Assembled = assemble(self.spec, self.store, runtime)
        self.model = self._assembled.model
        load_weights(self.model, best_weights(folder))
        self.valid = batch_source(self.store, self.spec, "valid")

    @property
    def predictor(self) -> Predictor:
        """What runs the model: its device, batch size and kept words."""
        return self._assembled.predictor

    @property
    def statistics(self) -> TrainingStatistics:
        """Priors, class means and bias words of the run's training split."""
        return self._assembled.statistics

    @property
    def num_parameters(self) -> int:
        """Parameters of the model without the text encoder."""
        return self.model.num_parameters()

    def predict(
        self,
        source: BatchSource,
        conditions: Sequence[Condition],
        on_batch: Callable[[int, int], None] | None = None,
    ) -> SplitPredictions:
        """Return the model's predictions of a split under some conditions, from one pass."""
        masks = SplitMasks(source, conditions, self.spec.missing, self.spec.seed)
        return predict_conditions(
            self._assembled.predictor,
            source,
            masks,
            memory_mib=self.memory_mib,
            on_batch=on_batch,
        )

    def answers(self, source: BatchSource, predictions: Predictions) -> Answers:
        """Return predictions of a split whose labels may be read, with ids and labels."""
        assert source.labels_N is not None
        return Answers(source.split.ids, source.labels_N, predictions)


def objective_values(
    folder: RunFolder, runtime: Runtime, objectives: Sequence[Objective]
) -> list[float]:
    """Return a search's objectives of a frozen run, from its validation split.

    Tau is chosen at every missing rate by the metric the run selects by, as an evaluation does.
    """
    run = FrozenRun(folder, runtime)
    missing = run.spec.missing
    wanted = []
    for objective in objectives:
        rates = run.spec.selection.rates if objective.rates is None else objective.rates
        is_measured = bool(objective.metric) or objective.rates is not None
        wanted.append(conditions_of(missing.protocol, rates, missing.kept) if is_measured else [])
    conditions = list(dict.fromkeys(each for conditions in wanted for each in conditions))
    known: dict[Condition, dict[str, float | None]] = {}
    if conditions:
        predicted = run.predict(run.valid, conditions).predictions
        for condition, predictions in zip(conditions, predicted, strict=True):
            answers = run.answers(run.valid, predictions)
            known[condition] = metrics_of(run.spec, answers, honest_tau(run.spec, answers))
    return [
        objective.value([known[each] for each in conditions], run.num_parameters)
        for objective, conditions in zip(objectives, wanted, strict=True)
    ]


class RunEvaluator:
    """Evaluates one frozen run; the model is built when a condition first needs it.

    Args:
        folder: the run's folder.
        runtime: where and how to execute.

    Raises:
        SealedTestError: if the run is not frozen.
    """

    def __init__(self, folder: RunFolder, runtime: Runtime) -> None:
        self.permit: TestPermit = permit_for_frozen_run(folder.root)
        self.folder = folder
        self.runtime = runtime
        self.spec = RunSpec.from_dict(read_json(folder.spec))
        self._loaded: tuple[FrozenRun, BatchSource] | None = None

    def _load(self) -> tuple[FrozenRun, BatchSource]:
        if self._loaded is None:
            run = FrozenRun(self.folder, self.runtime)
            self._loaded = run, batch_source(run.store, self.spec, "test", self.permit)
        return self._loaded

    def evaluate(
        self, conditions: Sequence[Condition], advance: Advance | None = None
    ) -> list[dict[str, Any]]:
        """Return one row per condition; what was evaluated before is read from its file."""
        todo = [each for each in dict.fromkeys(conditions) if not self._is_stored(each)]
        if todo:
            self._evaluate(todo, advance)
        return [read_json(self._files(each)[1]) for each in conditions]

    def _files(self, condition: Condition) -> tuple[Path, Path]:
        """Return the files of a condition's predictions and of its row."""
        name = evaluation_name(condition)
        return self.folder.predictions_file(name), self.folder.evaluation_file(name)

    def _is_stored(self, condition: Condition) -> bool:
        # The row is written last; without predictions it is of a version that stored other ones.
        return all(path.is_file() for path in self._files(condition))

    def _evaluate(self, conditions: Sequence[Condition], advance: Advance | None) -> None:
        run, test = self._load()
        found = {
            source.split.name: run.predict(source, conditions, _counter(advance, source))
            for source in (run.valid, test)
        }
        for number, condition in enumerate(conditions):
            answers = {
                source.split.name: run.answers(source, found[source.split.name].predictions[number])
                for source in (run.valid, test)
            }
            hashes = {split: each.mask_hashes[number] for split, each in found.items()}
            row = {
                "run_id": self.folder.run_id,
                "split": "test",
                "protocol": condition.protocol,
                "rate": condition.rate,
                "kept": condition.kept,
                **score(self.spec, answers["valid"], answers["test"]),
                "masks": hashes,
                "synthetic": run.store.manifest.synthetic,
            }
            predictions_file, row_file = self._files(condition)
            write_predictions(predictions_file, condition, answers, hashes)
            write_json_atomic(row_file, row)


def evaluate_run(
    folder: RunFolder,
    runtime: Runtime,
    conditions: Sequence[Condition],
    advance: Advance | None = None,
) -> list[dict[str, Any]]:
    """Return one row per condition: tau, validation metrics, test metrics, confusion matrix.

    Args:
        folder: a frozen run.
        runtime: where and how to execute.
        conditions: what to evaluate, see ``cider_platform.runs.conditions``.
        advance: told of the utterances read of each split.

    Raises:
        SealedTestError: if the run is not frozen.
    """
    return RunEvaluator(folder, runtime).evaluate(conditions, advance)


def areas_by_protocol(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return AUILC per test metric of every protocol that has at least two rates among the rows."""
    protocols = dict.fromkeys(row["protocol"] for row in rows)
    found = {
        protocol: areas([row for row in rows if row["protocol"] == protocol])
        for protocol in protocols
    }
    return {protocol: values for protocol, values in found.items() if values}


def _counter(advance: Advance | None, source: BatchSource) -> Callable[[int, int], None] | None:
    if advance is None:
        return None
    what = "validation split" if source.split.name == "valid" else "test split"
    return lambda done, total: advance(what, done, total)
