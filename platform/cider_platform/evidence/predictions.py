"""Stored predictions of a run's evaluations, read again without the model.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from cider.counterfactual import choose_tau, subtract
from cider.errors import CiderError, UsageError
from cider.metrics import METRICS
from cider.missing import uses_rate
from cider.modality import KEPT_SETS
from cider_platform.layout import read_json

if TYPE_CHECKING:
    from cider_platform.layout import RunFolder


@dataclass(frozen=True, slots=True)
class Place:
    """One condition of an evaluation: protocol, missing rate in [0, 1], smm's kept set."""

    protocol: str
    rate: float = 0.0
    kept: str = ""

    @property
    def evaluation(self) -> str:
        """Name of the evaluation's files in the run's folder."""
        return f"test-{self.protocol}-{self.kept or f'{self.rate:g}'}"

    def __str__(self) -> str:
        if self.kept or self.protocol == "none":
            return f"{self.protocol}/{self.kept}" if self.kept else self.protocol
        return f"{self.protocol}@{self.rate:g}"


def place_of(protocol: str, rate: float | None = None, kept: str = "") -> Place:
    """Return the condition that a protocol with its rate or kept set names.

    Raises:
        UsageError: for an unknown protocol, or a rate or kept set that is missing or too much.
    """
    if not uses_rate(protocol) and rate is not None:
        raise UsageError(f"the protocol {protocol} has no rate, got {rate:g}; leave it out")
    if protocol != "smm" and kept:
        raise UsageError(f"a kept set is only for the protocol smm, got {kept!r} with {protocol}")
    if protocol == "smm" and kept not in KEPT_SETS:
        raise UsageError(f"smm needs a kept set, one of {', '.join(KEPT_SETS)}, got {kept!r}")
    if uses_rate(protocol) and rate is None:
        raise UsageError(f"the protocol {protocol} needs a missing rate from 0 to 1, got none")
    return Place(protocol, rate or 0.0, kept)


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


def read_predictions(folder: RunFolder, place: Place, space: str) -> StoredPredictions:
    """Return what a run's evaluation stored for a condition.

    Args:
        folder: the run's folder.
        place: the condition.
        space: the run's ``maci.counterfactual_space``.

    Raises:
        FileNotFoundError: if there is no such evaluation.
        CiderError: if the file cannot be read.
    """
    path = folder.predictions_file(place.evaluation)
    try:
        table = pq.read_table(path)
        names = table.column_names
        counterfactual = "counterfactual_log_probs"
        return StoredPredictions(
            ids=tuple(map(str, table["id"].to_pylist())),
            labels_N=table["label"].to_numpy(),
            log_probs_NC=np.stack(table["log_probs"].to_numpy()),
            counterfactual_NC=np.stack(table[counterfactual].to_numpy())
            if counterfactual in names
            else None,
            tau=float(read_json(folder.evaluation_file(place.evaluation))["tau"]),
            space=space,
        )
    except (KeyError, ValueError, IndexError) as error:  # Arrow's errors are ValueErrors
        raise CiderError(
            f"the predictions {path} cannot be read ({error}); remove the evaluation's two files "
            "and evaluate again"
        ) from None
