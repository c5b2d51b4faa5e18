"""Evaluate a frozen run under missing data: the one place where test labels are read.

For every condition (protocol and rate, or protocol and kept set) tau is chosen on the validation
split under that same condition, then applied once to the test split. Predictions are stored beside
the metrics; a condition that was evaluated is never evaluated again.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cider.data.seal import TestPermit, permit_for_frozen_run
from cider.errors import UsageError
from cider.metrics import auilc, confusion_matrix
from cider.modality import KEPT_SETS
from cider.spec import RunSpec
from cider.training.checkpoint import load_weights
from cider.training.evaluation import (
    Condition,
    Masks,
    Predictions,
    all_metrics,
    metric_value,
    select_tau,
)
from cider_platform.assembly import Assembled, Runtime, assemble, batch_source, open_store
from cider_platform.layout import read_json, write_json_atomic
from cider_platform.trial import best_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cider.data.loader import BatchSource
    from cider.data.store import FeatureStore
    from cider_platform.layout import RunFolder

RATE_FREE = ("none", "smm")


def conditions_of(protocol: str, rates: Sequence[float], kept: str = "") -> list[Condition]:
    """Return the conditions that a protocol, its rates and a kept set name.

    Args:
        protocol: name of a missing protocol.
        rates: missing rates in [0, 1]; ``none`` and ``smm`` have none and ignore them.
        kept: smm's kept set; empty means all six.

    Raises:
        UsageError: for a kept set with another protocol, or an unknown one.
    """
    if protocol == "smm":
        if kept and kept not in KEPT_SETS:
            raise UsageError(f"unknown kept set {kept!r}; known: {', '.join(KEPT_SETS)}")
        return [Condition("smm", 0.0, each) for each in ([kept] if kept else KEPT_SETS)]
    if kept:
        raise UsageError(f"a kept set is only for the protocol smm, got {kept!r} with {protocol}")
    if protocol == "none":
        return [Condition("none", 0.0)]
    return [Condition(protocol, float(rate)) for rate in rates]


@dataclass(frozen=True, slots=True)
class Sources:
    """The two splits an evaluation reads."""

    valid: BatchSource
    test: BatchSource


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
        self._loaded: tuple[FeatureStore, Assembled, Sources] | None = None

    def _load(self) -> tuple[FeatureStore, Assembled, Sources]:
        if self._loaded is None:
            store = open_store(self.spec, self.runtime)
            assembled = assemble(self.spec, store, self.runtime)
            load_weights(assembled.model, best_weights(self.folder))
            sources = Sources(
                batch_source(store, self.spec, "valid"),
                batch_source(store, self.spec, "test", self.permit),
            )
            self._loaded = store, assembled, sources
        return self._loaded

    def evaluate(self, condition: Condition) -> dict[str, Any]:
        """Return the result row of one condition, from its file if it was evaluated before."""
        name = f"test-{condition.protocol}-{condition.kept or f'{condition.rate:g}'}"
        path = self.folder.evaluation_file(name)
        if path.exists():
            row: dict[str, Any] = read_json(path)
            return row
        store, _, sources = self._load()
        row, predictions = self._evaluate(condition, sources)
        row["synthetic"] = store.manifest.synthetic
        write_predictions(self.folder.predictions_file(name), sources.test, predictions, row["tau"])
        write_json_atomic(path, row)
        return row

    def _predict(self, source: BatchSource, condition: Condition) -> Predictions:
        _, assembled, _ = self._load()
        masks = Masks(source, condition, self.spec.missing, self.spec.seed)
        return assembled.predictor.predict(source, masks)

    def _evaluate(
        self, condition: Condition, sources: Sources
    ) -> tuple[dict[str, Any], Predictions]:
        spec = self.spec
        metric, space = spec.selection_metric, spec.maci.counterfactual_space
        valid_labels_N, labels_N = sources.valid.labels_N, sources.test.labels_N
        assert valid_labels_N is not None
        assert labels_N is not None
        on_valid = self._predict(sources.valid, condition)
        chosen = select_tau([on_valid], valid_labels_N, metric, spec.maci)
        on_test = self._predict(sources.test, condition)
        tau = chosen.tau
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
            "valid": finite(all_metrics(on_valid.scores(tau, space), valid_labels_N)),
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
        conditions: what to evaluate, see ``conditions_of``.
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
