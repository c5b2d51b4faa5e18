"""Stored predictions of a run's evaluations, read again without the model.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cider.counterfactual import choose_tau, subtract
from cider.metrics import METRICS
from cider_platform.layout import read_json
from cider_platform.runs import predictions as stored
from cider_platform.runs.conditions import evaluation_name

if TYPE_CHECKING:
    import numpy as np

    from cider.condition import Condition
    from cider_platform.layout import RunFolder


@dataclass(frozen=True, slots=True)
class StoredPredictions:
    """A run's predictions of the test split under one condition."""

    ids: tuple[str, ...]
    labels_N: np.ndarray
    log_probs_NC: np.ndarray
    counterfactual_NC: np.ndarray | None
    tau: float
    """As the evaluation chose it."""
    space: str
    """What is subtracted: ``log_probability`` or ``probability``."""

    def scores(self) -> np.ndarray:
        """Return the debiased scores (N, C) that the evaluation's metrics are of."""
        if self.counterfactual_NC is None:
            return self.log_probs_NC
        return subtract(self.log_probs_NC, self.counterfactual_NC, self.tau, self.space)

    def best_on_test(self, metric: str) -> float:
        """Return a metric with the tau that is best for it on the test labels themselves."""
        if self.counterfactual_NC is None:
            return METRICS[metric](self.log_probs_NC, self.labels_N)
        _, best = choose_tau(
            [self.log_probs_NC], [self.counterfactual_NC], self.labels_N, metric, self.space
        )
        return best


def read_predictions(folder: RunFolder, condition: Condition, space: str) -> StoredPredictions:
    """Return what a run's evaluation stored of the test split for a condition.

    Args:
        folder: the run's folder.
        condition: what it was evaluated under.
        space: the run's ``maci.counterfactual_space``.

    Raises:
        SealedTestError: if the run is not frozen.
        NothingMatchedError: if there are no such predictions.
        CiderError: if they cannot be read.
    """
    answers = stored.read_predictions(folder, condition).test
    return StoredPredictions(
        ids=tuple(answers.ids),
        labels_N=answers.labels_N,
        log_probs_NC=answers.predictions.log_probs_NC,
        counterfactual_NC=answers.predictions.counterfactual_NC,
        tau=float(read_json(folder.evaluation_file(evaluation_name(condition)))["tau"]),
        space=space,
    )


def is_evaluated(folder: RunFolder, condition: Condition) -> bool:
    """Return whether a run has both files of an evaluation: metrics and predictions."""
    name = evaluation_name(condition)
    return folder.evaluation_file(name).is_file() and folder.predictions_file(name).is_file()
