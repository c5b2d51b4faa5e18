"""Makes a report's model of runs: groups them, reads their evaluations, summarises over seeds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cider.errors import NothingMatchedError, UsageError
from cider.metrics import METRICS, auilc
from cider.registry import lookup
from cider.significance import summarise
from cider_platform.layout import now, read_json
from cider_platform.report.compared import compared_with
from cider_platform.report.model import Configuration, Number, Place, Report, Run
from cider_platform.results import evaluations
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cider_platform.evidence.comparison import Comparison
    from cider_platform.results import RunRecord

_FACTS = ("data.dataset", "data.task", "data.alignment", "data.distribution", "model.name",
          "missing.protocol", "selection.rule")  # fmt: skip
ALL = "all"

Tested = dict[Place, dict[str, float]]
"""A run's test metrics, in [0, 1], by place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs that a report shows as one configuration."""

    records: Sequence[RunRecord]
    labels: Mapping[str, str] | None = None
    """None: named by the fields in which the report's groups differ."""
    absent: Mapping[str, int] | None = None
    """Run -> seed, of runs that are asked for and have no folder."""
    spec: Mapping[str, Any] | None = None
    """Of a group that has no run yet."""


def by_configuration(records: Sequence[RunRecord]) -> list[Group]:
    """Return runs in groups that are equal in all but the seed, in the order of their first run."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_identity(record.spec), []).append(record)
    return [Group(records=each) for each in groups.values()]


def _identity(spec: Mapping[str, Any]) -> str:
    return json.dumps({**spec, "seed": None}, sort_keys=True)


def build(
    subject: str,
    groups: Sequence[Group],
    *,
    metrics: Sequence[str] = (),
    against: str = "",
    created: str = "",
    published: Sequence[Comparison] = (),
) -> Report:
    """Return the report of groups of runs.

    Args:
        subject: what it is of, for people.
        groups: the runs, by configuration.
        metrics: names of metrics; none means those by which the runs were selected, ``all`` every
            metric that was measured.
        against: what to compare with, see ``compared_with``; empty compares nothing.
        created: ISO 8601; empty means now.
        published: published tables with the runs beside them.

    Raises:
        UsageError: for an unknown metric, or a reference that there is not.
        NothingMatchedError: if there is no run.
    """
    if not any(group.records or group.absent for group in groups):
        raise NothingMatchedError(f"{subject} has no run to report")
    _check_seeds(groups)
    tested = {
        record.run_id: _tested(record)
        for group in groups
        for record in group.records
        if record.state == "COMPLETE"
    }
    wanted = _metrics(metrics, groups, tested)
    areas = _rates(tested)
    for found in tested.values():
        found |= _areas(found, areas)
    labels = _labels(groups)
    made = [
        _configuration(group, name, wanted, tested)
        for group, name in zip(groups, labels, strict=True)
    ]
    if all(group.labels is None for group in groups):
        # A grid has an order of its own; that of other runs must not hang on which ended first.
        made.sort(key=_order)
    report = Report(
        subject=subject,
        created=created or now(),
        metrics=wanted,
        configurations=tuple(made),
        published=tuple(published),
    )
    return compared_with(report, against) if against else report


def _tested(record: RunRecord) -> Tested:
    found: Tested = {}
    for row in evaluations(record):
        has_rate = row["protocol"] not in ("none", "smm")
        place = Place(row["protocol"], float(row["rate"]) if has_rate else None, row["kept"])
        found[place] = {name: value for name, value in row["test"].items() if value is not None}
    return found


def _rates(tested: Mapping[str, Tested]) -> dict[str, tuple[float, ...]]:
    """Return every rate of each protocol: areas over other rates do not compare."""
    found: dict[str, set[float]] = {}
    for rows in tested.values():
        for place in rows:
            if place.rate is not None:
                found.setdefault(place.protocol, set()).add(place.rate)
    return {name: tuple(sorted(rates)) for name, rates in found.items() if len(rates) > 1}


def _areas(rows: Tested, rates: Mapping[str, tuple[float, ...]]) -> Tested:
    """Return a run's areas under the curves of which it has every rate."""
    found: Tested = {}
    for protocol, every in rates.items():
        curve = [rows.get(Place(protocol, rate), {}) for rate in every]
        names = [name for name in curve[0] if all(name in each for each in curve)]
        if names:
            found[Place(protocol, None, "", every)] = {
                name: auilc(every, [each[name] for each in curve]) for name in names
            }
    return found


def _metrics(
    asked: Sequence[str], groups: Sequence[Group], tested: Mapping[str, Tested]
) -> tuple[str, ...]:
    measured = dict.fromkeys(
        name for rows in tested.values() for values in rows.values() for name in values
    )
    if ALL in asked:
        return tuple(measured)
    for name in asked:
        lookup("metric", name, METRICS)
    if asked:
        return tuple(dict.fromkeys(asked))
    records = [record for group in groups for record in group.records]
    selected = dict.fromkeys(str(r.result["metric"]) for r in records if r.result.get("metric"))
    return tuple(name for name in selected if name in measured) or tuple(measured)[:1]


def _labels(groups: Sequence[Group]) -> list[Mapping[str, str]]:
    """Return what tells groups apart: their axes, or the fields of the spec that differ."""
    specs = [dict(flat(_spec(group))) for group in groups]
    paths = dict.fromkeys(path for spec in specs for path in spec)
    hashes = ("seed", "schema", "data.content_sha256", "text_encoder.weights_sha256")
    differing = [
        path
        for path in paths
        if path not in hashes and len({str(spec.get(path)) for spec in specs}) > 1
    ]
    found: list[Mapping[str, str]] = []
    for group, spec in zip(groups, specs, strict=True):
        if group.labels is not None:
            found.append(group.labels)
        else:
            found.append({path: _said(spec[path]) for path in differing if path in spec})
    return found


def _order(configuration: Configuration) -> list[tuple[str, bool, float, str]]:
    """Return where a configuration stands: by its labels, numbers by their value."""
    found = []
    for name, text in configuration.labels.items():
        try:
            found.append((name, False, float(text), text))
        except ValueError:
            found.append((name, True, 0.0, text))
    return found


def _said(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return ",".join(map(_said, value)) if isinstance(value, list) else str(value)


def _spec(group: Group) -> Mapping[str, Any]:
    readable = (record.spec for record in group.records if record.spec)
    return next(readable, group.spec or {})


def _configuration(
    group: Group,
    labels: Mapping[str, str],
    metrics: Sequence[str],
    tested: Mapping[str, Tested],
) -> Configuration:
    runs = [_run(record, tested.get(record.run_id, {})) for record in group.records]
    runs += [
        Run(id=run, seed=seed, state="NOT BEGUN") for run, seed in (group.absent or {}).items()
    ]
    spec = dict(flat(_spec(group)))
    runs.sort(key=lambda run: (run.seed, run.id))
    return Configuration(
        id=hashlib.sha256(_identity(_spec(group)).encode()).hexdigest()[:12],
        labels=dict(labels),
        facts={path: str(spec[path]) for path in _FACTS if path in spec},
        runs=tuple(runs),
        numbers=tuple(_numbers(runs, metrics, tested)),
    )


def _run(record: RunRecord, tested: Tested) -> Run:
    imported = ["imported weights"] if "imported_from" in record.result else []
    return Run(
        id=record.run_id,
        seed=int(record.spec.get("seed", -1)),
        state=record.state,
        error=record.error,
        folder=str(record.folder.root),
        marks=(*record.marks, *imported),
        evaluations=sum(not place.is_area for place in tested),
        provenance=_provenance(record),
    )


def _provenance(record: RunRecord) -> dict[str, Any]:
    # Read here: the module provenance brings torch, which takes longer than a whole report.
    path = record.folder.provenance
    sessions = read_json(path)["sessions"] if path.is_file() else []
    last = sessions[-1] if sessions else {}
    git = last.get("git") or {}
    found = {
        "git": git.get("commit"),
        "differs_from_commit": git.get("dirty"),
        "code_sha256": last.get("code_sha256"),
        "corpus_sha256": record.spec.get("data", {}).get("content_sha256"),
        "ended": record.status.get("time"),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _numbers(
    runs: Sequence[Run], metrics: Sequence[str], tested: Mapping[str, Tested]
) -> list[Number]:
    places = dict.fromkeys(place for run in runs for place in tested.get(run.id, {}))
    found = []
    for place in places:
        for metric in metrics:
            have = {
                run.seed: run
                for run in runs
                if metric in tested.get(run.id, {}).get(place, {})
            }  # fmt: skip
            if not have:
                continue
            values = {seed: tested[run.id][place][metric] for seed, run in have.items()}
            found.append(
                Number(
                    place=place,
                    metric=metric,
                    values=values,
                    runs={seed: run.id for seed, run in have.items()},
                    summary=summarise(list(values.values())),
                )
            )
    return found


def _check_seeds(groups: Sequence[Group]) -> None:
    """Refuse runs that no table can show together: two of one configuration and seed.

    Raises:
        UsageError: naming the two.
    """
    for group in groups:
        seeds: dict[object, str] = {}
        for record in group.records:
            seed = record.spec.get("seed")
            if seed in seeds:
                raise UsageError(
                    f"runs {seeds[seed]} and {record.run_id} are of one configuration and seed "
                    f"{seed}; name one of them"
                )
            seeds[seed] = record.run_id
