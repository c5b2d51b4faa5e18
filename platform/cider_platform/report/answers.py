"""What stored predictions of a configuration's runs say of its answers: confusion and calibration.

Shapes: N utterances, C classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.metrics import confusion_matrix
from cider_platform.evidence.predictions import is_evaluated, read_predictions
from cider_platform.results import find_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cider.condition import Condition
    from cider_platform.report.model import Configuration

BINS = 10
CLASSES = {3: ("negative", "neutral", "positive")}
"""Number of classes -> their names; others have their numbers."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of all runs of a configuration to the test split under one condition."""

    condition: Condition
    runs: tuple[str, ...]
    confusion_CC: np.ndarray
    """int64; row = true class, column = answer; added up over runs."""
    share_B: np.ndarray
    """Share of the answers whose confidence lies in each bin."""
    confidence_B: np.ndarray
    """Mean confidence of each bin; NaN of an empty one."""
    accuracy_B: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |accuracy - confidence| over answers, by bin."""
        apart_B = np.abs(self.accuracy_B - self.confidence_B)
        return float(np.nansum(self.share_B * apart_B))


def answers_of(results: Path, configuration: Configuration, condition: Condition) -> Answers | None:
    """Return a configuration's answers; None if no run has stored predictions.

    Confidence is the probability that the model gives its answer without the counterfactual
    correction (whose scores are no probabilities); confusion is of the corrected answers, as the
    metrics are.
    """
    confusion, confidence, right, runs = [], [], [], []
    for run in configuration.runs:
        if run.state != "COMPLETE":
            continue
        record = find_run(results, run.id)
        if not is_evaluated(record.folder, condition):
            continue
        space = record.spec.get("maci", {}).get("counterfactual_space", "log_probability")
        stored = read_predictions(record.folder, condition, str(space))
        confusion.append(confusion_matrix(stored.scores(), stored.labels_N))
        confidence.append(np.exp(stored.log_probs_NC).max(axis=1))
        right.append(stored.log_probs_NC.argmax(axis=1) == stored.labels_N)
        runs.append(run.id)
    if not runs:
        return None
    share_B, confidence_B, accuracy_B = reliability(confidence, right)
    confusion_CC: np.ndarray = np.sum(confusion, axis=0)
    return Answers(condition, tuple(runs), confusion_CC, share_B, confidence_B, accuracy_B)


def reliability(
    confidence: Sequence[np.ndarray], right: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return share, mean confidence and accuracy of answers in ten equal bins of confidence.

    Args:
        confidence: per run (N,), probability of the answer in [0, 1].
        right: per run (N,), whether the answer was right.
    """
    confidence_N, right_N = np.concatenate(confidence), np.concatenate(right).astype(float)
    bins_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    count_B = np.bincount(bins_N, minlength=BINS).astype(float)
    filled_B = np.where(count_B > 0, count_B, np.nan)
    confidence_B = np.bincount(bins_N, confidence_N, BINS) / filled_B
    accuracy_B = np.bincount(bins_N, right_N, BINS) / filled_B
    return count_B / count_B.sum(), confidence_B, accuracy_B
