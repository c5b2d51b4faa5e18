"""Figures of a study: PNG and SVG, drawn with matplotlib's objects alone, without a display.

Optuna's own matplotlib figures were tried first. With CIDer's eight searched fields their labels
and axes run into each other, pruned trials are left out, and they change matplotlib's global style;
so the four figures are drawn here. States differ in their markers, not by colour alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.study import StudyDirection

from cider.errors import NothingMatchedError
from cider_platform.figure_files import BLUE, COLOURS, GREEN, ORANGE, WIDTH, write_both
from cider_platform.results import marks
from cider_platform.search.importance import importance
from cider_platform.search.study import objective_names, space_of
from cider_platform.tables import title

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import optuna
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

    from cider_platform.search.space import Axis

_MARKERS = {
    "COMPLETE": ("o", BLUE, "complete"),
    "PRUNED": ("v", ORANGE, "pruned, where it was stopped"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the figures show of a study, for one of its objectives."""

    study: optuna.Study
    title: str
    """Name of the study with its marks, e.g. ``study a [synthetic]``."""
    name: str
    """The objective."""
    objective: int
    """Its place among the study's objectives, from 0."""
    axes: tuple[Axis, ...]
    trials: list[FrozenTrial]
    """Complete and pruned trials that have a value, by number."""

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        is_maximised = self.study.directions[self.objective] == StudyDirection.MAXIMIZE
        return 1.0 if is_maximised else -1.0

    @property
    def complete(self) -> list[FrozenTrial]:
        """The complete trials."""
        return [trial for trial in self.trials if trial.state.name == "COMPLETE"]

    def value(self, trial: FrozenTrial) -> float:
        """Return a trial's value of the objective."""
        return float(trial.values[self.objective])

    def drawn(self, axis: Axis, trial: FrozenTrial) -> Any:  # noqa: ANN401 - any searched value
        """Return the value a trial has of a searched field."""
        return axis.value(trial.params[axis.path])


def show(study: optuna.Study, *, objective: int = 0) -> Shown:
    """Return what there is to draw of a study.

    Raises:
        NothingMatchedError: if no trial is complete.
    """
    definition = study.user_attrs
    names = objective_names(definition)
    shown = Shown(
        study=study,
        title=title(f"study {study.study_name}", marks(definition.get("base", {}))),
        name=names[objective],
        objective=objective,
        axes=space_of(definition),
        trials=[
            trial
            for trial in study.get_trials(deepcopy=False)
            if trial.state.name in _MARKERS and trial.values
        ],
    )
    if not shown.complete:
        raise NothingMatchedError(
            f"study {study.study_name} has no complete trial to draw yet; cider-platform study "
            f"trials {study.study_name} lists what it has"
        )
    return shown


def write_plots(
    study: optuna.Study, folder: Path, *, objective: int = 0
) -> tuple[list[Path], list[str]]:
    """Draw every figure of a study, each as PNG and SVG.

    Args:
        study: what is drawn.
        folder: made if it is not there; figures of the same name are replaced.
        objective: which of the study's objectives, from 0.

    Returns:
        The files; and, of every figure that was left out, why.

    Raises:
        NothingMatchedError: if no trial is complete.
    """
    shown = show(study, objective=objective)
    written: list[Path] = []
    left_out: list[str] = []
    for name, draw in FIGURES.items():
        try:
            written += write_both(folder, name, partial(draw, shown))
        except NothingMatchedError as reason:
            left_out.append(f"no {name} figure: {reason}")
    return written, left_out


def _name(figure: Figure, shown: Shown, what: str) -> None:
    # A study's name may be as long as a line.
    figure.suptitle(f"{shown.title}\n{what}", fontsize=10)


def draw_history(shown: Shown) -> Figure:
    """Draw every trial's value by its number, and the best complete one so far."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for state, (marker, colour, label) in _MARKERS.items():
        trials = [trial for trial in shown.trials if trial.state.name == state]
        if trials:
            axes.scatter(
                [trial.number for trial in trials],
                [shown.value(trial) for trial in trials],
                marker=marker, color=colour, s=28, label=f"{label} ({len(trials)})", zorder=3,
            )  # fmt: skip
    failed = [t.number for t in shown.study.get_trials(deepcopy=False) if t.state.name == "FAIL"]
    if failed:
        # Without a value: they stand on the lower edge, below every value.
        axes.scatter(failed, [0.0] * len(failed), marker="x", color="black", s=28, zorder=3,
                     transform=axes.get_xaxis_transform(), clip_on=False,
                     label=f"failed, without a value ({len(failed)})")  # fmt: skip
    numbers: list[int] = []
    best: list[float] = []
    for trial in shown.complete:
        numbers.append(trial.number)
        so_far = shown.sign * shown.value(trial)
        best.append(max(so_far, best[-1]) if best else so_far)
    numbers.append(max(numbers[-1], *(trial.number for trial in shown.trials)))
    axes.step(numbers, [shown.sign * each for each in [*best, best[-1]]], where="post", color=GREEN,
              linewidth=1.5, label="best so far", zorder=2)  # fmt: skip
    axes.set(xlabel="trial", ylabel=shown.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name(figure, shown, "history")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_importance(shown: Shown) -> Figure:
    """Draw how much each field decides whether a trial is among the best."""
    found = importance(shown.study, objective=shown.objective)
    names, shares = list(found.fields)[::-1], list(found.fields.values())[::-1]
    figure = Figure(figsize=(WIDTH, 1.6 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(names, shares, color=BLUE, height=0.65)
    axes.bar_label(bars, labels=[f"{share:.0%}" for share in shares], padding=3)
    axes.set_xlim(0, max(shares) * 1.12)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(
        f"share by {found.evaluator}: what makes the best {found.best} of {found.trials} trials"
    )
    _name(figure, shown, f"importance for {shown.name}")
    return figure


def draw_slices(shown: Shown) -> Figure:
    """Draw the objective over each searched field, a panel for each."""
    columns = min(len(shown.axes), 4)
    rows = math.ceil(len(shown.axes) / columns)
    width = max(2.6 * columns + 0.8, WIDTH)
    figure = Figure(figsize=(width, 2.4 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten().tolist()
    for axis, panel in zip(shown.axes, panels, strict=False):
        _draw_slice(shown, axis, panel)
    for panel in panels[len(shown.axes) :]:
        panel.set_visible(False)
    for panel in panels[::columns]:
        panel.set_ylabel(shown.name)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    _name(figure, shown, f"{shown.name} over each searched field")
    return figure


def _draw_slice(shown: Shown, axis: Axis, panel: Axes) -> None:
    scale = _Scale(axis)
    for state, (marker, colour, label) in _MARKERS.items():
        trials = [t for t in shown.trials if t.state.name == state and axis.path in t.params]
        if not trials:
            continue
        panel.scatter(
            [scale.place(shown.drawn(axis, trial)) for trial in trials],
            [shown.value(trial) for trial in trials],
            marker=marker, color=colour, s=18, alpha=0.75, label=label,
        )  # fmt: skip
    panel.set_xlabel(axis.path)
    panel.set_xlim(-0.06, 1.06)
    panel.set_xticks(scale.ticks, scale.labels)


def draw_parallel(shown: Shown) -> Figure:
    """Draw each complete trial as a line through its values of all fields."""
    if len(shown.axes) < 2:
        raise NothingMatchedError("lines between fields need at least two searched fields")
    trials = sorted(shown.complete, key=lambda trial: shown.sign * shown.value(trial))
    trials = [t for t in trials if all(axis.path in t.params for axis in shown.axes)]
    scales = [_Scale(axis) for axis in shown.axes]
    values = [shown.value(trial) for trial in trials]
    colour = ScalarMappable(
        Normalize(*_range(values)), COLOURS if shown.sign > 0 else f"{COLOURS}_r"
    )
    figure = Figure(figsize=(1.45 * max(len(scales), 4) + 1.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    lines = [
        [(place, scale.place(shown.drawn(scale.axis, trial))) for place, scale in enumerate(scales)]
        for trial in trials
    ]
    # The best are drawn last, above the others.
    axes.add_collection(
        LineCollection(lines, colors=colour.to_rgba(np.array(values)), linewidths=1.3, alpha=0.85)
    )
    for place, scale in enumerate(scales):
        axes.axvline(place, color="#555555", linewidth=0.8, zorder=1)
        for height, label in zip(scale.ticks, scale.labels, strict=True):
            axes.text(place - 0.05, height, label, ha="right", va="center", fontsize=7.5,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.75},
                      zorder=4)  # fmt: skip
    names = [axis.path.replace(".", ".\n", 1) for axis in shown.axes]
    axes.set_xticks(range(len(names)), names)
    axes.set(xlim=(-0.45, len(names) - 0.85), ylim=(-0.05, 1.05), yticks=[])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(colour, ax=axes, label=shown.name, pad=0.02)
    _name(figure, shown, "complete trials, one line each")
    return figure


class _Scale:
    """Places the values of a searched field between 0 and 1, and labels that range."""

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        if axis.kind == "choice":
            count = len(axis.choices)
            self.ticks = [index / (count - 1) for index in range(count)]
            self.labels = [_short(choice) for choice in axis.choices]
        else:
            marked = _marked_values(axis)
            self.ticks = [self.place(value) for value in marked]
            self.labels = [_short(value) for value in marked]

    def place(self, value: Any) -> float:  # noqa: ANN401 - any searched value
        """Return where a value lies, from 0 to 1."""
        if self.axis.kind == "choice":
            return self.axis.choices.index(value) / (len(self.axis.choices) - 1)
        low, high = self.axis.low, self.axis.high
        if self.axis.kind == "log":
            return math.log(value / low) / math.log(high / low)
        return float((value - low) / (high - low))


def _marked_values(axis: Axis) -> list[float]:
    low, high = axis.low, axis.high
    if axis.kind == "log":
        return [low, math.sqrt(low * high), high]
    if axis.kind == "int" and high - low <= 5:
        return [float(value) for value in range(int(low), int(high) + 1)]
    middle = (low + high) / 2
    return [low, float(round(middle)) if axis.kind == "int" else middle, high]


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2g}" if value else "0"
    text = str(value)
    return text if len(text) <= 14 else f"{text[:13]}~"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


FIGURES: dict[str, Callable[[Shown], Figure]] = {
    "history": draw_history,
    "importance": draw_importance,
    "parallel": draw_parallel,
    "slices": draw_slices,
}
"""File name -> what draws it."""
