"""The tables of a report, as text that every format prints in its own way. Numbers in percent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cider_platform.report.model import AUILC
from cider_platform.tables import title

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cider_platform.report.model import Configuration, Number, Paired, Place, Report

PERCENT = 100.0
NONE = "-"


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    value: float | None = None
    """What the cell sorts by; None of a text."""
    number: Number | None = None
    """The number behind it, with its runs."""
    runs: tuple[str, ...] = ()
    """Runs behind a text that is of runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with what stands above it."""

    id: str
    """A word that can be an anchor."""
    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[str]
    """Headings of columns of numbers."""
    heading: str = ""
    """What a section about it is called; empty: by its metric and protocol."""
    metric: str = ""
    protocol: str = ""
    configurations: tuple[str, ...] = ()
    """Ids of the rows' configurations, where each row is of one."""


def result_tables(report: Report) -> list[Table]:
    """Return one table per metric and protocol: configurations by conditions, mean +- SD."""
    protocols: dict[str, list[Place]] = {}
    for place in report.places:
        protocols.setdefault(place.protocol, []).append(place)
    return [
        _result_table(report, metric, protocol, places)
        for metric in report.metrics
        for protocol, places in protocols.items()
    ]


def _result_table(report: Report, metric: str, protocol: str, places: Sequence[Place]) -> Table:
    names = [_short(place) for place in places]
    labels = label_names(report)
    rows = []
    for each in report.configurations:
        known = {n.place: n for n in each.numbers if n.metric == metric}
        numbers = [known.get(place) for place in places]
        rows.append(
            (*label_cells(each, labels), *map(_number_cell, numbers), _seeds_cell(each, numbers))
        )
    caption = f"{report.subject}: test {metric} under {protocol}, percent, mean +- SD over seeds"
    return Table(
        id=f"{metric}-{protocol}",
        caption=title(caption, report.marks),
        headings=(*labels, *names, "seeds"),
        rows=tuple(rows),
        right=frozenset([*names, "seeds"]),
        metric=metric,
        protocol=protocol,
        configurations=tuple(each.id for each in report.configurations),
    )


def _short(place: Place) -> str:
    """Return a place's name within its protocol."""
    if place.is_area:
        return AUILC
    return place.kept or (place.protocol if place.rate is None else f"{place.rate:g}")


def label_names(report: Report) -> list[str]:
    """Return the names of what tells the configurations apart; one column if nothing does."""
    names = list(dict.fromkeys(name for each in report.configurations for name in each.labels))
    marks = {each.marks for each in report.configurations}
    return [*(names or ["configuration"]), *(["marks"] if len(marks) > 1 else [])]


def label_cells(configuration: Configuration, names: Sequence[str]) -> Iterator[Cell]:
    """Yield a configuration's labels."""
    for name in names:
        if name == "marks" and name not in configuration.labels:
            yield Cell(", ".join(configuration.marks) or NONE)
        elif name == "configuration" and name not in configuration.labels:
            yield Cell(configuration.name)
        else:
            yield Cell(configuration.labels.get(name, NONE))


def _number_cell(number: Number | None) -> Cell:
    if number is None:
        return Cell(NONE)
    summary = number.summary
    text = f"{PERCENT * summary.mean:.2f}"
    if summary.sd is not None:
        text += f" +- {PERCENT * summary.sd:.2f}"
    return Cell(text, PERCENT * summary.mean, number)


def _seeds_cell(configuration: Configuration, numbers: Sequence[Number | None]) -> Cell:
    """Return how many seeds the row is of; of how many, where some lack a number."""
    counts = [0 if each is None else each.summary.num_seeds for each in numbers]
    asked = len(configuration.runs)
    fewest, most = min(counts, default=0), max(counts, default=0)
    text = f"{most}" if fewest == most else f"{fewest} to {most}"
    if fewest < asked:
        text += f" of {asked}"
    return Cell(text, float(fewest), runs=tuple(run.id for run in configuration.runs))


def comparison_table(report: Report) -> Table | None:
    """Return the differences from the reference; None if nothing was compared."""
    if not report.comparisons:
        return None
    labels = label_names(report)
    headings = ("under", "metric", "difference", "95 % interval", "p", "p (Holm)", "common seeds")
    rows = tuple(
        (*label_cells(report.configuration(each.configuration), labels), *_compared_cells(each))
        for each in report.comparisons
    )
    return Table(
        id="comparisons",
        caption=title(
            f"{report.subject}: difference from {report.reference}, in percentage points",
            report.marks,
        ),
        headings=(*labels, *headings),
        rows=rows,
        right=frozenset(headings[2:]),
    )


def _compared_cells(each: Paired) -> Iterator[Cell]:
    yield Cell(str(each.place))
    yield Cell(each.metric)
    if each.compared is None:
        yield from (Cell(NONE), Cell(NONE), Cell(NONE), Cell(NONE), Cell("0", 0.0))
        return
    found, test = each.compared.difference, each.compared.test
    yield Cell(f"{PERCENT * found.mean:+.2f}", PERCENT * found.mean, runs=each.runs)
    if found.interval is None:
        yield Cell(NONE)
    else:
        low, high = PERCENT * found.interval.low, PERCENT * found.interval.high
        yield Cell(f"{low:+.2f} to {high:+.2f}", low)
    yield Cell(NONE) if each.adjusted_p is None else Cell(f"{test.p:.3g}", test.p)
    if each.adjusted_p is None:
        yield Cell(NONE)
    else:
        yield Cell(f"{each.adjusted_p:.3g}{each.star}", each.adjusted_p)
    yield Cell(str(found.num_seeds), float(found.num_seeds))


def run_table(report: Report) -> Table:
    """Return every run: configuration, seed, state, marks, code."""
    labels = label_names(report)
    rows = []
    for each in report.configurations:
        for run in each.runs:
            code = str(run.provenance.get("git", NONE))[:10]
            if run.provenance.get("differs_from_commit"):
                code += " (changed)"
            rows.append((
                Cell(run.id, runs=(run.id,)),
                *label_cells(each, labels),
                Cell(str(run.seed), float(run.seed)),
                Cell(run.state + (f": {run.error}" if run.error else "")),
                Cell(str(run.evaluations), float(run.evaluations)),
                Cell(", ".join(run.marks) or NONE),
                Cell(code),
            ))  # fmt: skip
    headings = ("run", *labels, "seed", "state", "conditions", "run's marks", "commit")
    return Table(
        id="runs",
        caption=f"{report.subject}: its runs",
        headings=headings,
        rows=tuple(rows),
        right=frozenset(["seed", "conditions"]),
    )
