"""Two runs on the same utterances: is their difference more than the luck of the test split?

It says nothing of other seeds: two trainings of one configuration can differ by it, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cider.errors import NothingMatchedError, UsageError
from cider.metrics import ACCURACY_OF, METRICS, metrics_of_task, right_answers
from cider.registry import lookup
from cider.significance import BootstrapDifference, McNemar, bootstrap_difference, mcnemar
from cider_platform.evidence.predictions import (
    StoredPredictions,
    is_evaluated,
    read_predictions,
)
from cider_platform.evidence.quantity import Quantity

if TYPE_CHECKING:
    from cider.condition import Condition
    from cider_platform.results import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoRuns:
    """The difference of two runs under one condition."""

    first: str
    second: str
    condition: str
    metric: str
    utterances: int
    """Utterances the accuracy counts."""
    first_value: float
    second_value: float
    bootstrap: BootstrapDifference
    """Of the metric."""
    accuracy: str
    """The accuracy that McNemar's test is of: the metric, or that over the same answers as it."""
    mcnemar: McNemar
    marks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def compare_runs(
    first: RunRecord, second: RunRecord, condition: Condition, metric: str = "", *, seed: int = 0
) -> TwoRuns:
    """Compare two runs' stored predictions of the test split under one condition.

    Args:
        first: a run, evaluated under the condition.
        second: another; the difference is the first minus this one.
        condition: what both were evaluated under.
        metric: name of a metric of their task; empty means what the first selects by.
        seed: of the bootstrap.

    Raises:
        NothingMatchedError: if a run was not evaluated under the condition.
        UsageError: if the runs have other tasks or utterances, or the task no such metric.
    """
    tasks = [each.spec.get("data", {}).get("task") for each in (first, second)]
    if tasks[0] != tasks[1]:
        raise UsageError(
            f"runs are compared on one task, got {tasks[0]} of {first.run_id} and {tasks[1]} of "
            f"{second.run_id}"
        )
    metric = metric or str(first.result.get("metric"))
    lookup("metric", metric, metrics_of_task(str(tasks[0])))
    mine, other = (_predictions(each, condition, metric) for each in (first, second))
    if mine.ids != other.ids or (mine.labels_N != other.labels_N).any():
        raise UsageError(
            f"runs are compared on the same test utterances; {first.run_id} has {len(mine.ids)} of "
            f"one corpus, {second.run_id} {len(other.ids)} of another"
        )
    scores = [each.scores() for each in (mine, other)]
    right = [right_answers(metric, each, mine.labels_N) for each in scores]
    function = METRICS[metric]
    return TwoRuns(
        first=first.run_id,
        second=second.run_id,
        condition=str(condition),
        metric=metric,
        utterances=len(right[0]),
        first_value=function(scores[0], mine.labels_N),
        second_value=function(scores[1], mine.labels_N),
        bootstrap=bootstrap_difference(function, scores[0], scores[1], mine.labels_N, seed=seed),
        accuracy=ACCURACY_OF[metric],
        mcnemar=mcnemar(right[0], right[1]),
        marks=tuple(dict.fromkeys([*first.marks, *second.marks])),
    )


def _predictions(record: RunRecord, condition: Condition, metric: str) -> StoredPredictions:
    if not is_evaluated(record.folder, condition):
        quantity = Quantity(
            protocol=condition.protocol, metric=metric, rate=condition.rate, kept=condition.kept
        )
        raise NothingMatchedError(
            f"run {record.run_id} has no evaluation under {condition}; make it with: "
            f"{quantity.command(record.run_id)}"
        )
    space = record.spec.get("maci", {}).get("counterfactual_space", "log_probability")
    return read_predictions(record.folder, condition, str(space))
