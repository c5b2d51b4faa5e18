"""Class labels from regression labels: the two tasks of the published tables.

N is the number of utterances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cider.registry import lookup
from cider.spec import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.spec import Task

LABEL_RANGE = (-3.0, 3.0)
"""Smallest and largest regression label of a corpus: strongly negative to strongly positive."""


def _sign(labels_N: np.ndarray) -> np.ndarray:
    sign_N: np.ndarray = np.sign(labels_N).astype(np.int64)
    return sign_N + 1


def _seven(labels_N: np.ndarray) -> np.ndarray:
    # np.round rounds half to even, as the published labels do: 0.5 is class 3, 1.5 is class 5.
    rounded_N: np.ndarray = np.round(np.clip(labels_N, *LABEL_RANGE)).astype(np.int64)
    return rounded_N + 3


_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "three_class": _sign,
    "seven_class": _seven,
}


def class_labels(labels_N: np.ndarray, task: Task) -> np.ndarray:
    """Return the class of every regression label.

    Args:
        labels_N: finite regression labels, any float type.
        task: ``three_class`` (0 negative, 1 neutral, 2 positive, by sign) or ``seven_class``
            (the label clipped to [-3, 3], rounded half to even, plus 3).

    Returns:
        int64 (N,).

    Raises:
        UsageError: for any other task.
    """
    return lookup("task", task, _RULES)(np.asarray(labels_N))


def label_histogram(labels_N: np.ndarray) -> dict[str, list[int]]:
    """Return how many labels each class of each task has, by task."""
    return {
        task: np.bincount(rule(np.asarray(labels_N)), minlength=NUM_CLASSES[task]).tolist()
        for task, rule in _RULES.items()
    }
