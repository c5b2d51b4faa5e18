"""Two configurations over their seeds: runs that are equal in all but the seed are one.

The unit of chance is the seed: it answers whether one is better when both are trained anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cider.errors import NothingMatchedError, UsageError
from cider.metrics import metrics_of_task
from cider.registry import lookup
from cider.significance import PairedSeeds, SeedSummary, compare_paired, summarise
from cider_platform.evidence.quantity import Quantity, metrics_by_condition
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cider_platform.results import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoConfigurations:
    """Two configurations, each with its own seeds, and their difference on common ones."""

    quantity: str
    first: Mapping[int, float]
    """Value by seed, in [0, 1]."""
    second: Mapping[int, float]
    first_summary: SeedSummary
    second_summary: SeedSummary
    paired: PairedSeeds
    """First minus second."""
    differs: Mapping[str, tuple[object, object]]
    """Fields in which the two configurations differ."""
    evaluate: tuple[str, ...]
    """Commands that make the evaluations that are missing."""
    marks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def compare_configurations(
    records: Sequence[RunRecord], first: RunRecord, second: RunRecord, quantity: Quantity
) -> TwoConfigurations:
    """Compare the configurations of two runs on the seeds that both were trained on.

    Args:
        records: all runs there are; the complete ones of the two configurations are taken.
        first: a run of one configuration.
        second: a run of the other.
        quantity: what is compared.

    Raises:
        UsageError: if both runs are of one configuration, or their task has no such metric.
        NothingMatchedError: if no common seed is evaluated; the message has a command.
    """
    lookup("metric", quantity.metric, metrics_of_task(str(first.spec["data"]["task"])))
    if _configuration(first) == _configuration(second):
        raise UsageError(
            f"runs {first.run_id} and {second.run_id} are of one configuration and differ in the "
            "seed alone; name runs of two configurations"
        )
    values, lacking = [], []
    for each in (first, second):
        by_seed = {}
        for run in _siblings(records, each):
            found = quantity.value(metrics_by_condition(run))
            if found is None:
                lacking.append(quantity.command(run.run_id))
            else:
                by_seed[int(run.spec["seed"])] = found
        values.append(dict(sorted(by_seed.items())))
    mine, other = values
    if not mine.keys() & other.keys():
        hint = f"; begin with: {lacking[0]}" if lacking else ""
        raise NothingMatchedError(
            f"no seed of both configurations has been evaluated for {quantity}: evaluated are "
            f"{sorted(mine)} and {sorted(other)}{hint}"
        )
    specs = [dict(flat(each.spec)) for each in (first, second)]
    return TwoConfigurations(
        quantity=str(quantity),
        first=mine,
        second=other,
        first_summary=summarise(list(mine.values())),
        second_summary=summarise(list(other.values())),
        paired=compare_paired(mine, other),
        differs={
            path: (specs[0].get(path), specs[1].get(path))
            for path in dict.fromkeys([*specs[0], *specs[1]])
            if path != "seed" and specs[0].get(path) != specs[1].get(path)
        },
        evaluate=tuple(lacking),
        marks=tuple(dict.fromkeys([*first.marks, *second.marks])),
    )


def _configuration(record: RunRecord) -> str:
    return json.dumps({**record.spec, "seed": None}, sort_keys=True)


def _siblings(records: Sequence[RunRecord], record: RunRecord) -> list[RunRecord]:
    mine = _configuration(record)
    return [each for each in records if each.state == "COMPLETE" and _configuration(each) == mine]
