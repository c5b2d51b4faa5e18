"""Figures of a report for print, as PNG and SVG: the style of ``cider_platform.figure_files``.

Configurations differ in colour (Okabe and Ito), dashes and markers, so that they can be told apart
without colour.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cider.condition import Condition
from cider.errors import NothingMatchedError
from cider_platform.figure_files import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    WIDTH,
    write_drawn,
)
from cider_platform.report.answers import CLASSES, Answers, answers_of
from cider_platform.report.tables import PERCENT
from cider_platform.tables import title

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from cider_platform.report.model import Configuration, Number, Place, Report

MOST = 12
"""Configurations in one figure; more cannot be told apart in print."""
_LOOKS = [
    (colour, dashes, marker)
    for dashes, marker in (("-", "o"), ("--", "s"), (":", "^"))
    for colour in (BLUE, ORANGE, GREEN, "#CC79A7")
]
_Y_NAME = "{metric}, percent"


def write_figures(report: Report, results: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw every figure that a report has numbers for, each as PNG and SVG.

    Args:
        report: what is drawn.
        results: root of the runs, for stored predictions.
        folder: made if it is not there; figures of the same name are replaced.

    Returns:
        The files; and, of every kind of figure that was left out, why.

    Raises:
        NothingMatchedError: if there are more configurations than a figure can show, or none has
            a number.
    """
    if len(report.configurations) > MOST:
        raise NothingMatchedError(
            f"a figure shows at most {MOST} configurations, {report.subject} has "
            f"{len(report.configurations)}; choose with --where"
        )
    if not report.places:
        raise NothingMatchedError(f"{report.subject} has no evaluated run to draw")
    written: list[Path] = []
    left_out: list[str] = []
    for kind, draw in KINDS.items():
        with mpl.rc_context(STYLE):
            figures = dict(draw(report, results))
            for name, figure in figures.items():
                written += write_drawn(folder, name, figure)
        if not figures:
            left_out.append(f"no {kind} figure: {_NEEDS[kind]}")
    return written, left_out


def draw_curves(report: Report, results: Path) -> Iterator[tuple[str, Figure]]:  # noqa: ARG001
    """Yield a figure per metric and protocol: mean over the missing rate, band: 95 % interval."""
    for metric in report.metrics:
        for protocol in dict.fromkeys(place.protocol for place in report.places):
            curves = [
                (look, each, numbers)
                for look, each in _looked(report)
                if len(numbers := _curve(each, metric, protocol)) > 1
            ]
            if curves:
                yield f"curve-{metric}-{protocol}", _curves(report, metric, protocol, curves)


def _looked(report: Report) -> list[tuple[tuple[str, str, str], Configuration]]:
    return list(zip(_LOOKS, report.configurations, strict=False))


def _curve(each: Configuration, metric: str, protocol: str) -> list[Number]:
    found = [
        n
        for n in each.numbers
        if n.metric == metric and n.place.protocol == protocol and n.place.rate is not None
    ]
    return sorted(found, key=lambda number: number.place.rate or 0.0)


def _curves(
    report: Report,
    metric: str,
    protocol: str,
    curves: Sequence[tuple[tuple[str, str, str], Configuration, Sequence[Number]]],
) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.0 + 0.2 * len(curves)), layout="constrained")
    axes = figure.add_subplot()
    for (colour, dashes, marker), each, numbers in curves:
        rates = [number.place.rate or 0.0 for number in numbers]
        lows, highs = zip(*(_ends(number) for number in numbers), strict=True)
        axes.fill_between(rates, lows, highs, color=colour, alpha=0.15, linewidth=0)
        axes.plot(rates, [PERCENT * n.summary.mean for n in numbers], color=colour,
                  linestyle=dashes, marker=marker, markersize=4, linewidth=1.5,
                  label=_legend(each, numbers))  # fmt: skip
    axes.set(xlabel=f"missing rate ({protocol})", ylabel=_Y_NAME.format(metric=metric))
    _name(figure, report, f"test {metric} under {protocol}; band: 95 % interval over seeds")
    figure.legend(loc="outside lower center", ncols=1, frameon=False)
    return figure


def _ends(number: Number) -> tuple[float, float]:
    interval, mean = number.summary.interval, number.summary.mean
    low, high = (mean, mean) if interval is None else (interval.low, interval.high)
    return PERCENT * low, PERCENT * high


def _legend(each: Configuration, numbers: Sequence[Number]) -> str:
    counts = {number.summary.num_seeds for number in numbers}
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{shortened(each.name, 84)} ({seeds} seed{'' if seeds == '1' else 's'})"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many letters; what is cut leaves a mark in the middle."""
    plain = " ".join(text.split()).replace("$", r"\$")
    if len(plain) <= most:
        return plain
    half = (most - 3) // 2
    return f"{plain[:half]}...{plain[-half:]}"


def _name(figure: Figure, report: Report, what: str) -> None:
    subject = title(shortened(report.subject, 60), report.marks)
    figure.suptitle(f"{subject}\n{what}", fontsize=10)


def draw_bars(report: Report, results: Path) -> Iterator[tuple[str, Figure]]:  # noqa: ARG001
    """Yield a figure per metric of the areas over missing rates (AUILC), a panel per protocol."""
    for metric in report.metrics:
        places = [place for place in report.places if place.is_area]
        panels = [(f"AUILC under {place.protocol}", place) for place in places]
        if figure := _bars(report, metric, panels, f"area of test {metric} over missing rates"):
            yield f"auilc-{metric}", figure


def draw_smm(report: Report, results: Path) -> Iterator[tuple[str, Figure]]:  # noqa: ARG001
    """Yield a figure per metric of what stays when whole modalities are missing (SMM)."""
    for metric in report.metrics:
        places = [place for place in report.places if place.protocol == "smm"]
        panels = [(f"kept: {place.kept}", place) for place in places]
        if figure := _bars(report, metric, panels, f"test {metric} with whole modalities missing"):
            yield f"smm-{metric}", figure


def _bars(
    report: Report, metric: str, panels: Sequence[tuple[str, Place]], what: str
) -> Figure | None:
    """Return horizontal bars, a panel per place; a whisker is a 95 % interval over seeds."""
    shown = [
        (name, place)
        for name, place in panels
        if any(each.number(place, metric) for each in report.configurations)
    ]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    count = len(report.configurations)
    figure = Figure(figsize=(WIDTH, 1.3 + rows * (0.8 + 0.26 * count)), layout="constrained")
    panels_ = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    names = [str(index + 1) for index in range(count)]
    for axes, (name, place) in zip(panels_.flat, shown, strict=False):
        numbers = [each.number(place, metric) for each in report.configurations]
        _draw_bars(axes, numbers)
        axes.set_title(name, fontsize=9)
        axes.set_yticks(range(count), names)
        axes.set_ylim(count - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
    for axes in panels_.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in panels_.flat[max(0, len(shown) - columns) : len(shown)]:
        # The lowest of its column: below it there may be none.
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(_Y_NAME.format(metric=metric))
    key = "\n".join(
        f"{index + 1}  {shortened(each.name, 92)}"
        for index, each in enumerate(report.configurations)
    )
    figure.supxlabel(key, fontsize=8, x=0.02, ha="left")
    _name(figure, report, f"{what}; whisker: 95 % interval over seeds")
    return figure


def _draw_bars(axes: Axes, numbers: Sequence[Number | None]) -> None:
    for row, (number, (colour, _, _)) in enumerate(zip(numbers, _LOOKS, strict=False)):
        if number is None:
            axes.text(0, row, " not measured", va="center", fontsize=8)
            continue
        mean, (low, high) = PERCENT * number.summary.mean, _ends(number)
        axes.barh(row, mean, color=colour, alpha=0.85, height=0.62)
        axes.plot([low, high], [row, row], color="black", linewidth=1.2)
        axes.text(mean / 2, row, f"{mean:.1f}", va="center", ha="center", fontsize=8,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip


def draw_ablation(report: Report, results: Path) -> Iterator[tuple[str, Figure]]:  # noqa: ARG001
    """Yield the differences from the reference, a panel per place, with their intervals."""
    for metric in report.metrics:
        found = [each for each in report.comparisons if each.metric == metric and each.compared]
        if not found:
            continue
        figure = Figure(figsize=(WIDTH, 1.5 + 0.3 * len(found)), layout="constrained")
        axes = figure.add_subplot()
        for row, each in enumerate(found):
            assert each.compared is not None
            difference = each.compared.difference
            mean = PERCENT * difference.mean
            axes.barh(row, mean, color=BLUE if mean >= 0 else ORANGE, height=0.62)
            if difference.interval is not None:
                ends = (PERCENT * difference.interval.low, PERCENT * difference.interval.high)
                axes.plot(ends, [row, row], color="black", linewidth=1.2)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(
            range(len(found)),
            [
                f"{shortened(report.configuration(each.configuration).name, 40)}\n"
                f"{each.place}{each.star}"
                for each in found
            ],
            fontsize=7,
        )
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"difference in test {metric}, percentage points")
        reference = shortened(report.reference, 40)
        _name(figure, report, f"difference from {reference}; whisker: 95 % interval over seeds")
        yield f"difference-{metric}", figure


def draw_confusion(report: Report, results: Path) -> Iterator[tuple[str, Figure]]:
    """Yield a confusion matrix per configuration, at the lowest and highest rate measured."""
    for index, each in enumerate(report.configurations, start=1):
        found = _answers(results, each)
        if found:
            yield f"confusion-{index}", _confusion(report, each, found)


def _answers(results: Path, each: Configuration) -> list[Answers]:
    rated = [n.place for n in each.numbers if n.place.rate is not None]
    if not rated:
        return []
    protocol = each.facts.get("missing.protocol", rated[0].protocol)
    own = [place for place in rated if place.protocol == protocol] or rated
    rates = sorted({place.rate or 0.0 for place in own})
    conditions = [Condition(own[0].protocol, rate) for rate in dict.fromkeys([rates[0], rates[-1]])]
    found = (answers_of(results, each, condition) for condition in conditions)
    return [answers for answers in found if answers is not None]


def _confusion(report: Report, each: Configuration, found: Sequence[Answers]) -> Figure:
    count = len(found[0].confusion_CC)
    names = CLASSES.get(count, tuple(map(str, range(count))))
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, answers in zip(panels, found, strict=True):
        totals = answers.confusion_CC.sum(axis=1, keepdims=True)
        shares = answers.confusion_CC / np.maximum(totals, 1)
        axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            axes.text(column, row, f"{share:.0%}" if count <= 3 else f"{PERCENT * share:.0f}",
                      ha="center", va="center", color="black" if share > 0.6 else "white",
                      fontsize=9 if count <= 3 else 7)  # fmt: skip
        axes.set_xticks(range(count), names)
        axes.set_yticks(range(count), names, rotation=90 if count <= 3 else 0, va="center")
        axes.set(xlabel="answer", ylabel="true class", title=str(answers.condition))
        axes.grid(visible=False)
    runs = f"{len(found[0].runs)} run{'' if len(found[0].runs) == 1 else 's'}"
    what = f"{shortened(each.name, 70)}\nshare of each true class, {runs}"
    _name(figure, report, what)
    return figure


def draw_calibration(report: Report, results: Path) -> Iterator[tuple[str, Figure]]:
    """Yield a reliability diagram per configuration: accuracy over confidence, with ECE."""
    for index, each in enumerate(report.configurations, start=1):
        found = _answers(results, each)
        if found:
            yield f"calibration-{index}", _calibration(report, each, found)


def _calibration(report: Report, each: Configuration, found: Sequence[Answers]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, answers in zip(panels, found, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        filled = answers.share_B > 0
        places = answers.confidence_B[filled], answers.accuracy_B[filled]
        sizes = 12 + 300 * answers.share_B[filled]
        axes.scatter(*places, s=sizes, color=BLUE, alpha=0.8, zorder=3)
        axes.plot(*places, color=BLUE, linewidth=1)
        axes.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="accuracy")
        axes.set_title(f"{answers.condition}: ECE {PERCENT * answers.ece:.1f} %", fontsize=9)
    what = f"{shortened(each.name, 70)}\ncalibration before correction; larger dot: more answers"
    _name(figure, report, what)
    return figure


KINDS: dict[str, Callable[[Report, Path], Iterator[tuple[str, Figure]]]] = {
    "curve": draw_curves,
    "auilc": draw_bars,
    "smm": draw_smm,
    "difference": draw_ablation,
    "confusion": draw_confusion,
    "calibration": draw_calibration,
}
"""Kind of figure, with which its files' names begin -> what draws it."""

_NEEDS = {
    "curve": "it takes evaluations at two missing rates; evaluate --rates 0:1:0.1 makes them",
    "auilc": "it takes evaluations at two missing rates; evaluate --rates 0:1:0.1 makes them",
    "smm": "it takes evaluations of kept sets; evaluate --missing smm makes them",
    "difference": "it takes --against",
    "confusion": "it takes stored predictions; evaluate makes them",
    "calibration": "it takes stored predictions; evaluate makes them",
}
