"""Evaluate a frozen run under missing data: the one place where test labels are read.

For every condition (protocol and rate, or protocol and kept set) tau is chosen on the validation
split under that same condition, then applied once to the test split. Predictions are stored beside
the metrics; a condition that was evaluated is never evaluated again.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cider.data.seal import TestPermit, permit_for_frozen_run
from cider.metrics import auilc, confusion_matrix
from cider.spec import RunSpec
from cider.training.checkpoint import load_weights
from cider.training.evaluation import (
    Masks,
    Predictions,
    all_metrics,
    metric_value,
    select_tau,
)
from cider_platform.assembly import Assembled, Runtime, assemble, batch_source, open_store
from cider_platform.conditions import conditions_of, evaluation_name
from cider_platform.layout import read_json, write_json_atomic
from cider_platform.trial import best_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cider.condition import Condition
    from cider.data.loader import BatchSource
    from cider.data.store import FeatureStore
    from cider_platform.layout import RunFolder
    from cider_platform.objectives import Objective


class FrozenRun:
    """A frozen run's model and its validation split; nothing of the test split is read.

    Args:
        folder: the run's folder.
        runtime: where and how to execute.
    """

    def __init__(self, folder: RunFolder, runtime: Runtime) -> None:
        self.spec = RunSpec.from_dict(read_json(folder.spec))
        self.store: FeatureStore = open_store(self.spec, runtime)
        self._assembled: Assembled = assemble(self.spec, self.store, runtime)
        self.model = self._assembled.model
        load_weights(self.model, best_weights(folder))
        self.valid = batch_source(self.store, self.spec, "valid")

    @property
    def num_parameters(self) -> int:
        """Parameters of the model without the text encoder."""
        return self.model.num_parameters()

    def predict(self, source: BatchSource, condition: Condition) -> Predictions:
        """Return the model's predictions of a split under a condition."""
        masks = Masks(source, condition, self.spec.missing, self.spec.seed)
        return self._assembled.predictor.predict(source, masks)

    def choose_tau(self, condition: Condition) -> tuple[float, Predictions]:
        """Return tau, chosen on validation under a condition, and the validation predictions."""
        predictions, labels_N = self.predict(self.valid, condition), self.valid.labels_N
        assert labels_N is not None
        chosen = select_tau([predictions], labels_N, self.spec.selection_metric, self.spec.maci)
        return chosen.tau, predictions

    def validation_metrics(self, predictions: Predictions, tau: float) -> dict[str, float | None]:
        """Return every metric of validation predictions, corrected with tau."""
        assert self.valid.labels_N is not None
        scores_NC = predictions.scores(tau, self.spec.maci.counterfactual_space)
        return finite(all_metrics(scores_NC, self.valid.labels_N))


def objective_values(
    folder: RunFolder, runtime: Runtime, objectives: Sequence[Objective]
) -> list[float]:
    """Return a search's objectives of a frozen run, from its validation split.

    Tau is chosen at every missing rate by the metric the run selects by, as an evaluation does.
    """
    run = FrozenRun(folder, runtime)
    missing = run.spec.missing
    selected_at = conditions_of(missing.protocol, run.spec.selection.rates, missing.kept)
    known: dict[Condition, dict[str, float | None]] = {}

    def metrics_under(condition: Condition) -> dict[str, float | None]:
        if condition not in known:
            tau, predictions = run.choose_tau(condition)
            known[condition] = run.validation_metrics(predictions, tau)
        return known[condition]

    values = []
    for objective in objectives:
        conditions = selected_at if objective.metric else []
        if objective.rates is not None:
            conditions = conditions_of(missing.protocol, objective.rates, missing.kept)
        values.append(objective.value(list(map(metrics_under, conditions)), run.num_parameters))
    return values


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
        self.frozen = read_json(folder.frozen)
        self._loaded: tuple[FrozenRun, BatchSource] | None = None

    def _load(self) -> tuple[FrozenRun, BatchSource]:
        if self._loaded is None:
            run = FrozenRun(self.folder, self.runtime)
            self._loaded = run, batch_source(run.store, self.spec, "test", self.permit)
        return self._loaded

    def evaluate(self, condition: Condition) -> dict[str, Any]:
        """Return the result row of one condition, from its file if it was evaluated before."""
        name = evaluation_name(condition)
        path = self.folder.evaluation_file(name)
        if path.exists():
            row: dict[str, Any] = read_json(path)
            return row
        run, test = self._load()
        row, predictions = self._evaluate(run, test, condition)
        row["synthetic"] = run.store.manifest.synthetic
        write_predictions(self.folder.predictions_file(name), test, predictions, row["tau"])
        write_json_atomic(path, row)
        return row

    def _evaluate(
        self, run: FrozenRun, test: BatchSource, condition: Condition
    ) -> tuple[dict[str, Any], Predictions]:
        spec = self.spec
        metric, space = spec.selection_metric, spec.maci.counterfactual_space
        labels_N = test.labels_N
        assert labels_N is not None
        tau, on_valid = run.choose_tau(condition)
        on_test = run.predict(test, condition)
        row: dict[str, Any] = {
            "run_id": self.folder.run_id,
            "split": "test",
            "protocol": condition.protocol,
            "rate": condition.rate,
            "kept": condition.kept,
            "selection": spec.selection.rule,
        }
        if spec.selection.rule == "published":
            # The paper's way: tau that is best on the very labels it is scored with.
            published = select_tau([on_test], labels_N, metric, spec.maci)
            honest = metric_value(on_test.scores(tau, space), labels_N, metric)
            row["optimism_of_tau"] = published.score - honest
            tau = published.tau
        scores_NC = on_test.scores(tau, space)
        row |= {
            "tau": tau,
            "tau_chosen_on": "test" if spec.selection.rule == "published" else "valid",
            "valid": run.validation_metrics(on_valid, tau),
            "test": finite(all_metrics(scores_NC, labels_N)),
            "confusion": confusion_matrix(scores_NC, labels_N).tolist(),
        }
        return row, on_test


def evaluate_run(
    folder: RunFolder,
    runtime: Runtime,
    conditions: Sequence[Condition],
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Return one row per condition: tau, validation metrics, test metrics, confusion matrix.

    Args:
        folder: a frozen run.
        runtime: where and how to execute.
        conditions: what to evaluate, see ``cider_platform.conditions``.
        on_row: called with every row as it is done.

    Raises:
        SealedTestError: if the run is not frozen.
    """
    evaluator = RunEvaluator(folder, runtime)
    rows = []
    for condition in conditions:
        rows.append(evaluator.evaluate(condition))
        if on_row is not None:
            on_row(rows[-1])
    return rows


def areas(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return AUILC per test metric over rows of one protocol; empty for fewer than two rates."""
    by_rate = sorted((row for row in rows if not row["kept"]), key=lambda row: row["rate"])
    rates = [row["rate"] for row in by_rate]
    if len(set(rates)) < 2:
        return {}
    return {
        name: auilc(rates, [row["test"][name] for row in by_rate])
        for name in by_rate[0]["test"]
        if all(row["test"][name] is not None for row in by_rate)
    }


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON values: a metric that is undefined (NaN) becomes None."""
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}


def write_predictions(
    path: Path, source: BatchSource, predictions: Predictions, tau: float
) -> None:
    """Write per-utterance log-probabilities: id, label, tau, factual and counterfactual (C)."""
    columns: dict[str, Any] = {
        "id": source.split.ids,
        "label": source.labels_N,
        "tau": np.full(len(source), tau),
        "log_probs": list(predictions.log_probs_NC),
    }
    if predictions.counterfactual_NC is not None:
        columns["counterfactual_log_probs"] = list(predictions.counterfactual_NC)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        pq.write_table(pa.table(columns), temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
