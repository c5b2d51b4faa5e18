"""Metrics of predictions: pure functions of scores and class labels, each defined in one sentence.

Scores are log-probabilities, or differences of them (Eq. 25): only their order within a row counts.
A metric is in [0, 1], and NaN where no utterance belongs to it (all are neutral, or there is none).
Everything is computed in float64. Shapes: N utterances, C classes, R missing rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.errors import TrainingError
from cider.registry import lookup
from cider.spec import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cider.spec import Task

    MetricFunction = Callable[[np.ndarray, np.ndarray], float]

NEGATIVE, NEUTRAL, POSITIVE = 0, 1, 2
"""Classes of the task three_class."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how well labels are predicted; larger is better."""

    task: Task
    definition: str
    function: MetricFunction

    def __call__(self, scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
        """Return the metric.

        Args:
            scores_NC: a score per class; the largest is the prediction, the first of equals.
            labels_N: class labels, int.

        Raises:
            TrainingError: if a score is NaN.
        """
        return self.function(*_checked(scores_NC, labels_N, NUM_CLASSES[self.task]))


METRICS: dict[str, Metric] = {}
"""Every metric by name."""

DEFINITIONS: dict[str, str] = {
    "auilc": "Area under a metric's curve over missing rates, by the trapezoidal rule; over rates "
    "0 to 1 it is the mean height of the curve (Eq. 31).",
    "confusion_matrix": "Number of utterances of each true class (row) predicted as each class "
    "(column).",
}
"""What each number means, in one sentence; the only place where that is written."""


def metric(name: str, *, task: Task, definition: str) -> Callable[[MetricFunction], MetricFunction]:
    """Register a metric of a task."""

    def register(function: MetricFunction) -> MetricFunction:
        METRICS[name] = Metric(task, definition, function)
        DEFINITIONS[name] = definition
        return function

    return register


def metrics_of_task(task: str) -> dict[str, Metric]:
    """Return the metrics of a task by name.

    Raises:
        UsageError: if there is no such task.
    """
    lookup("task", task, NUM_CLASSES)
    return {name: each for name, each in METRICS.items() if each.task == task}


@metric(
    "acc2",
    task="three_class",
    definition="Acc2 (non0): share of the utterances whose label is not neutral for which the "
    "largest of the three classes is the true one; the answer neutral is wrong.",
)
def _acc2(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    polar_N = labels_N != NEUTRAL
    return _accuracy(scores_NC.argmax(axis=1)[polar_N], labels_N[polar_N])


@metric(
    "f1",
    task="three_class",
    definition="F1 (non0): F1 of each class, weighted by its number of true utterances, over the "
    "same utterances and predictions as acc2.",
)
def _f1(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    polar_N = labels_N != NEUTRAL
    return _weighted_f1(scores_NC.argmax(axis=1)[polar_N], labels_N[polar_N], 3)


@metric(
    "has0_acc2",
    task="three_class",
    definition="Acc2 (has0): share of all utterances for which the larger of the scores of "
    "negative and positive says whether the label is negative, neutral counting as positive.",
)
def _has0_acc2(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return _accuracy(_larger_pole(scores_NC), labels_N >= NEUTRAL)


@metric(
    "has0_f1",
    task="three_class",
    definition="F1 (has0): F1 of each of the two answers of has0_acc2, weighted by its number of "
    "true utterances.",
)
def _has0_f1(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return _weighted_f1(_larger_pole(scores_NC), (labels_N >= NEUTRAL).astype(np.int64), 2)


@metric(
    "acc3",
    task="three_class",
    definition="Acc3: share of all utterances whose class of three is predicted.",
)
def _acc3(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return _accuracy(scores_NC.argmax(axis=1), labels_N)


@metric(
    "f1_3",
    task="three_class",
    definition="F1 of each of the three classes, weighted by its number of true utterances.",
)
def _f1_3(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return _weighted_f1(scores_NC.argmax(axis=1), labels_N, 3)


@metric(
    "acc7",
    task="seven_class",
    definition="Acc7: share of all utterances whose class of seven is predicted.",
)
def _acc7(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return _accuracy(scores_NC.argmax(axis=1), labels_N)


@metric(
    "f1_7",
    task="seven_class",
    definition="F1 of each of the seven classes, weighted by its number of true utterances.",
)
def _f1_7(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return _weighted_f1(scores_NC.argmax(axis=1), labels_N, 7)


ACCURACY_OF = {
    "acc2": "acc2", "f1": "acc2", "has0_acc2": "has0_acc2", "has0_f1": "has0_acc2",
    "acc3": "acc3", "f1_3": "acc3", "acc7": "acc7", "f1_7": "acc7",
}  # fmt: skip
"""Metric -> the accuracy over the same utterances and answers."""


def right_answers(name: str, scores_NC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Return whether each utterance that an accuracy counts is predicted right; its mean is it.

    Args:
        name: a metric; of an F1 it is the accuracy over the same utterances and answers.
        scores_NC: a score per class.
        labels_N: class labels, int.

    Raises:
        UsageError: if there is no such metric.
        TrainingError: if a score is NaN.
    """
    name = lookup("metric", name, ACCURACY_OF)
    scores_NC, labels_N = _checked(scores_NC, labels_N, NUM_CLASSES[METRICS[name].task])
    if name == "has0_acc2":
        right_N: np.ndarray = _larger_pole(scores_NC) == (labels_N >= NEUTRAL)
        return right_N
    right_N = scores_NC.argmax(axis=1) == labels_N
    return right_N[labels_N != NEUTRAL] if name == "acc2" else right_N


def confusion_matrix(scores_NC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Return int64 (C, C): row = true class, column = predicted class."""
    num_classes = scores_NC.shape[1]
    scores_NC, labels_N = _checked(scores_NC, labels_N, num_classes)
    return _confusion(scores_NC.argmax(axis=1), labels_N, num_classes)


def auilc(rates: Sequence[float], values: Sequence[float]) -> float:
    """Return the area under a metric's curve over missing rates (Eq. 31).

    Args:
        rates: at least two missing rates, rising; published: 0, 0.1, ..., 1. The area is not
            divided by their range, so only areas over the same rates compare.
        values: the metric at each rate.
    """
    rates_R, values_R = np.asarray(rates, dtype=float), np.asarray(values, dtype=float)
    if rates_R.shape != values_R.shape or len(rates_R) < 2 or (np.diff(rates_R) <= 0).any():
        raise ValueError(
            f"an area needs at least two rising rates and a value for each, got rates "
            f"{rates_R.tolist()} and {len(values_R)} values"
        )
    return float(((values_R[1:] + values_R[:-1]) / 2 * np.diff(rates_R)).sum())


def _checked(
    scores_NC: np.ndarray, labels_N: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    scores_NC, labels_N = np.asarray(scores_NC, dtype=np.float64), np.asarray(labels_N)
    if scores_NC.shape != (len(labels_N), num_classes) or labels_N.ndim != 1:
        raise ValueError(
            f"scores must have shape ({len(labels_N)}, {num_classes}), got {scores_NC.shape}"
        )
    if np.isnan(scores_NC).any():
        raise TrainingError(
            "predictions must be numbers, got NaN: the model has diverged; lower optimizer.lr or "
            "set training.gradient_clip"
        )
    if len(labels_N) and not (labels_N.min() >= 0 and labels_N.max() < num_classes):
        raise ValueError(
            f"class labels must be in [0, {num_classes}), got {labels_N.min()}..{labels_N.max()}"
        )
    return scores_NC, labels_N


def _larger_pole(scores_NC: np.ndarray) -> np.ndarray:
    positive_N: np.ndarray = scores_NC[:, [NEGATIVE, POSITIVE]].argmax(axis=1)
    return positive_N


def _accuracy(predicted_N: np.ndarray, truth_N: np.ndarray) -> float:
    return float((predicted_N == truth_N).mean()) if len(truth_N) else math.nan


def _confusion(predicted_N: np.ndarray, truth_N: np.ndarray, num_classes: int) -> np.ndarray:
    pairs_N = truth_N.astype(np.int64) * num_classes + predicted_N
    counts = np.bincount(pairs_N, minlength=num_classes**2)
    matrix_CC: np.ndarray = counts.reshape(num_classes, num_classes)
    return matrix_CC


def _weighted_f1(predicted_N: np.ndarray, truth_N: np.ndarray, num_classes: int) -> float:
    # Weights are those of the truth. Some published systems pass the two in the other order,
    # which weights by predictions and is another number.
    matrix_CC = _confusion(predicted_N, truth_N, num_classes)
    true_C, answered_C = matrix_CC.sum(axis=1), matrix_CC.sum(axis=0)
    if not true_C.sum():
        return math.nan
    # F1 = 2 hits / (true + answered); a class that is neither true nor answered has weight 0.
    f1_C = 2 * np.diagonal(matrix_CC) / np.maximum(true_C + answered_C, 1)
    return float(f1_C @ true_C / true_C.sum())
