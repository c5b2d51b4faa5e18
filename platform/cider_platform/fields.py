"""What can be asked about a run, as one flat table of names and values.

==========================  =======================================================================
name                        value
==========================  =======================================================================
``run`` ``state`` ...       what ``runs list`` shows
``training.batch_size`` ... any field of the run's spec, by its dotted path
``parameters`` ...          any field of its result; ``valid.acc2@0.5`` is of the selected epoch
``test.acc2@0.5``           sealed test, under the run's own protocol, at a rate; ``@LA``: kept set
``test.rmm.acc2@0.5``       sealed test under any protocol
``test.auilc.acc2``         area over the rates that were evaluated; ``test.rmm.auilc.acc2``
``tau.rmm@0.5``             tau of that condition
==========================  =======================================================================

This module imports neither torch nor pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cider.metrics import auilc
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cider_platform.results import RunRecord

EVALUATED = ("test.", "tau.")
"""How names begin that need the evaluations of a run."""

Fields = dict[str, Any]


def run_fields(record: RunRecord, evaluations: Sequence[Mapping[str, Any]] = ()) -> Fields:
    """Return every field of a run that has a value.

    Args:
        record: the run.
        evaluations: its evaluation rows; without them no name begins with ``test.`` or ``tau.``.
    """
    found: Fields = {name: value for name, value in flat(record.spec) if name != "schema"}
    found |= {name: value for name, value in flat(record.result) if name != "run_id"}
    found |= record.summary()
    missing = record.spec.get("missing", {})
    own = str(missing.get("protocol", ""))
    for protocol in dict.fromkeys(row["protocol"] for row in evaluations):
        mine = [row for row in evaluations if row["protocol"] == protocol]
        found |= _tested(f"test.{protocol}.", mine)
        if protocol == own:
            found |= _tested("test.", mine)
        found |= {f"tau.{protocol}{_at(row)}": row["tau"] for row in mine}
    return {name: value for name, value in found.items() if value is not None}


def _tested(prefix: str, rows: Sequence[Mapping[str, Any]]) -> Fields:
    found = {
        f"{prefix}{metric}{_at(row)}": value
        for row in rows
        for metric, value in row["test"].items()
    }
    return found | {f"{prefix}auilc.{name}": area for name, area in areas(rows).items()}


def _at(row: Mapping[str, Any]) -> str:
    """Return how a condition's names end: ``@0.5``, ``@LA``, nothing where nothing is missing."""
    if row["protocol"] == "none":
        return ""
    return f"@{row['kept'] or format(row['rate'], 'g')}"


def areas(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return AUILC per test metric over rows of one protocol; empty for fewer than two rates."""
    by_rate = sorted((row for row in rows if not row["kept"]), key=lambda row: row["rate"])
    if len({row["rate"] for row in by_rate}) < 2:
        return {}
    return {
        name: auilc([row["rate"] for row in by_rate], [row["test"][name] for row in by_rate])
        for name in by_rate[0]["test"]
        if all(row["test"][name] is not None for row in by_rate)
    }
