"""Stored predictions of a run's evaluations, read again without the model.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
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
        # Not as a data set: folders named like partitions would come back as columns.
        table = pq.ParquetFile(path).read()
        if "split" in table.column_names:
            is_test = [each == "test" for each in table["split"].to_pylist()]
            table = table.filter(pa.array(is_test))
        log_probs_NC = _matrix(table, "log_probs")
        if log_probs_NC is None:
            raise ValueError("no log-probabilities")
        return StoredPredictions(
            ids=tuple(map(str, table["id"].to_pylist())),
            labels_N=table["label"].to_numpy().astype(np.int64),
            log_probs_NC=log_probs_NC,
            counterfactual_NC=_matrix(table, "counterfactual_log_probs"),
            tau=float(read_json(folder.evaluation_file(place.evaluation))["tau"]),
            space=space,
        )
    except (KeyError, ValueError, IndexError) as error:  # Arrow's errors are ValueErrors
        raise CiderError(
            f"the predictions {path} cannot be read ({error}); remove the evaluation's two files "
            "and evaluate again"
        ) from None


def _matrix(table: pa.Table, name: str) -> np.ndarray | None:
    """Return a column of lists as float64 (N, C); None without it, or if its lists are null."""
    if name not in table.column_names or table[name].null_count:
        return None
    lists = table[name].combine_chunks()
    values: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return values.reshape(len(lists), -1)
