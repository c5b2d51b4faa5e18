"""Metrics of predictions whose labels may be read, by the rules of the run; needs no model.

An evaluation calls this on what the model just said, and whoever reads stored predictions calls it
on those: the numbers are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cider.metrics import confusion_matrix
from cider.training.evaluation import all_metrics, metric_value, select_tau

if TYPE_CHECKING:
    from cider.spec import RunSpec
    from cider_platform.runs.predictions import Answers


def honest_tau(spec: RunSpec, valid: Answers) -> float:
    """Return the tau that is best on validation answers, by the metric the run selects by."""
    return select_tau([valid.predictions], valid.labels_N, spec.selection_metric, spec.maci).tau


def metrics_of(spec: RunSpec, answers: Answers, tau: float) -> dict[str, float | None]:
    """Return every metric of the task of answers corrected with tau; None where undefined."""
    scores_NC = answers.predictions.scores(tau, spec.maci.counterfactual_space)
    return finite(all_metrics(scores_NC, answers.labels_N))


def score(spec: RunSpec, valid: Answers, test: Answers) -> dict[str, Any]:
    """Return tau, metrics of both splits and the test split's confusion matrix, as JSON values.

    Args:
        spec: says how tau is chosen: on validation, or on the test split under the published
            selection, whose optimism is then reported beside it.
        valid: answers of the validation split under one condition.
        test: answers of the test split under the same condition.
    """
    metric, space = spec.selection_metric, spec.maci.counterfactual_space
    tau = honest_tau(spec, valid)
    row: dict[str, Any] = {"selection": spec.selection.rule}
    if spec.selection.rule == "published":
        # The paper's way: tau that is best on the very labels it is scored with.
        published = select_tau([test.predictions], test.labels_N, metric, spec.maci)
        honest = metric_value(test.predictions.scores(tau, space), test.labels_N, metric)
        row["optimism_of_tau"] = published.score - honest
        tau = published.tau
    scores_NC = test.predictions.scores(tau, space)
    return row | {
        "tau": tau,
        "tau_chosen_on": "test" if spec.selection.rule == "published" else "valid",
        "valid": metrics_of(spec, valid, tau),
        "test": metrics_of(spec, test, tau),
        "confusion": confusion_matrix(scores_NC, test.labels_N).tolist(),
    }


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON values: a metric that is undefined (NaN) becomes None."""
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}
