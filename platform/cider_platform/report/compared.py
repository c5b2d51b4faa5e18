"""A report's configurations against a reference, paired over common seeds, corrected by Holm."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cider.errors import NothingMatchedError, UsageError
from cider.significance import compare_paired, holm, star
from cider_platform.report.model import Configuration, Paired, Place, Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CORPUS = ("data.dataset", "data.task", "data.alignment", "data.distribution")


def compared_with(report: Report, against: str) -> Report:
    """Return a report with the differences from a reference.

    One number of a protocol is compared: its area if there is one, else every condition of it, so
    that Holm's correction is over questions and not over points of one curve.

    Args:
        report: without comparisons.
        against: ``LABEL=VALUE``: every configuration is compared with the one that has this value
            and else the same labels, e.g. ``variant=whole``; or the id of a run, or its beginning:
            every configuration on the same data is compared with that run's.

    Raises:
        UsageError: for a label or value that no configuration has, or the beginning of several ids.
        NothingMatchedError: if no run has such an id, or nothing is left to compare.
    """
    pairs = _by_label(report, against) if "=" in against else _by_run(report, against)
    if not pairs:
        raise NothingMatchedError(
            f"the report has no configuration to compare with {against!r}: another one must have "
            "the same other labels, or be on the same data"
        )
    found = [
        each
        for mine, other in pairs
        for metric in report.metrics
        for each in _compared(mine, other, metric)
    ]
    return replace(report, reference=against, comparisons=_corrected(found))


def _by_label(report: Report, against: str) -> list[tuple[Configuration, Configuration]]:
    label, _, value = against.partition("=")
    values = dict.fromkeys(
        each.labels[label] for each in report.configurations if label in each.labels
    )
    if value not in values:
        known = dict.fromkeys(name for each in report.configurations for name in each.labels)
        told = (
            f"values of {label}: {', '.join(values)}"
            if values
            else f"labels: {', '.join(known) or 'none, all runs are of one configuration'}"
        )
        raise UsageError(f"no configuration of the report has {against!r}; {told}")
    references = {
        _others(each, label): each
        for each in report.configurations
        if each.labels.get(label) == value
    }
    return [
        (each, reference)
        for each in report.configurations
        if each.labels.get(label, value) != value
        and (reference := references.get(_others(each, label))) is not None
    ]


def _others(configuration: Configuration, label: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(item for item in configuration.labels.items() if item[0] != label))


def _by_run(report: Report, against: str) -> list[tuple[Configuration, Configuration]]:
    matching = [
        (run.id, each)
        for each in report.configurations
        for run in each.runs
        if run.id.startswith(against)
    ]
    if not matching:
        raise NothingMatchedError(
            f"no run of the report has an id that begins with {against!r}; --against takes such an "
            "id, or LABEL=VALUE"
        )
    if len({each.id for _, each in matching}) > 1:
        runs = ", ".join(dict.fromkeys(run for run, _ in matching[:5]))
        raise UsageError(f"{against!r} begins the ids of runs of several configurations: {runs}")
    reference = matching[0][1]
    return [
        (each, reference)
        for each in report.configurations
        if each.id != reference.id and _corpus(each) == _corpus(reference)
    ]


def _corpus(configuration: Configuration) -> list[str | None]:
    return [configuration.facts.get(name) for name in _CORPUS]


def _compared(mine: Configuration, other: Configuration, metric: str) -> Iterator[Paired]:
    for place in headline_places([mine, other], metric):
        first, second = mine.number(place, metric), other.number(place, metric)
        if first is None or second is None:
            continue
        common = first.values.keys() & second.values.keys()
        yield Paired(
            configuration=mine.id,
            reference=other.id,
            place=place,
            metric=metric,
            compared=compare_paired(first.values, second.values) if common else None,
            runs=tuple(each.runs[seed] for each in (first, second) for seed in sorted(common)),
        )


def headline_places(configurations: Sequence[Configuration], metric: str) -> list[Place]:
    """Return the places that stand for whole protocols: areas, and conditions without one."""
    found = dict.fromkeys(
        n.place for each in configurations for n in each.numbers if n.metric == metric
    )
    with_area = {place.protocol for place in found if place.is_area}
    return [place for place in found if place.is_area or place.protocol not in with_area]


def _corrected(found: Sequence[Paired]) -> tuple[Paired, ...]:
    tests = [each.compared.test for each in found if each.compared is not None]
    ps = iter(holm([test.p for test in tests if test.num_pairs > 1]))
    count = sum(test.num_pairs > 1 for test in tests)
    corrected = []
    for each in found:
        if each.compared is None or each.compared.test.num_pairs < 2:
            corrected.append(each)
            continue
        p = next(ps)
        mark = star(p, each.compared.test.smallest_p, count)
        corrected.append(replace(each, adjusted_p=p, star=mark))
    return tuple(corrected)
