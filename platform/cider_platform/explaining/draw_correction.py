"""The figure of a correction: a panel of class probabilities per step, as the paper's Fig. 9."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from cider_platform.explaining.opened import said
from cider_platform.figure_files import BLUE, GREEN, GREY, ORANGE, WIDTH
from cider_platform.report.figures import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cider_platform.explaining.correction import Correction, Step

_LONG = 0.62
"""A bar from this share on has its value inside."""
_STATISTICS = ("prior", "words")


def draw_correction(correction: Correction, heading: str) -> Figure:
    """Draw every step's probabilities.

    The answer's bar is filled, green where it is right and orange where it is wrong, and its value
    is bold; the true class is marked with an arrow, so that nothing hangs on colour.
    """
    steps = correction.steps
    columns = 3 if len(steps) in {2, 3, 5, 6} else 4
    rows = math.ceil(len(steps) / columns)
    height = 0.62 + 0.19 * max(len(correction.classes), 3)
    figure = Figure(figsize=(WIDTH, 1.45 + (height + 0.35) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten().tolist()
    for number, (step, axes) in enumerate(zip(steps, panels, strict=False), start=1):
        _draw_step(axes, correction, step, number)
    for axes in panels[len(steps) :]:
        axes.set_visible(False)
    classes = [
        f"\u25b8 {name}" if number == correction.label else name
        for number, name in enumerate(correction.classes)
    ]
    for axes in panels[::columns]:
        axes.set_yticks(range(len(classes)), classes)
    panels[0].set_ylim(len(classes) - 0.45, -0.55)
    missing = said(correction.condition)
    lines = [
        shortened(heading, 100),
        shortened(f"{correction.sample.id} ({correction.sample.split}), {missing}", 100),
    ]
    figure.suptitle("\n".join(lines), fontsize=10)
    read = shortened(correction.texts["read"], 200)
    told = textwrap.wrap(f"read: {read}", 104)
    if "counterfactual" in correction.texts:
        kept = shortened(correction.texts["counterfactual"], 200)
        told += textwrap.wrap(f"counterfactual: {kept}", 104)
    told.append("arrow: true class; filled bar: the answer, hatched where it is wrong")
    figure.supxlabel("\n".join(told), fontsize=8, x=0.02, ha="left")
    return figure


def _draw_step(axes: Axes, correction: Correction, step: Step, number: int) -> None:
    for row, share in enumerate(step.probabilities_C):
        is_answer, is_right = row == step.answer, step.answer == correction.label
        colour = (GREEN if is_right else ORANGE) if is_answer else GREY
        if step.name in _STATISTICS and is_answer:
            colour = BLUE
        axes.barh(row, share, color=colour if is_answer else "none", edgecolor=colour, height=0.66,
                  hatch="///" if is_answer and not is_right else None, alpha=0.9)  # fmt: skip
        is_long = share > _LONG
        axes.text(share - 0.04 if is_long else share + 0.03, row, f"{share:.1%}", va="center",
                  ha="right" if is_long else "left", fontsize=7.5,
                  fontweight="bold" if is_answer else "normal",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
    axes.set_title(textwrap.fill(f"{number}  {step.says}", 23), fontsize=8, loc="left")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"], fontsize=7)
    axes.grid(visible=False, axis="y")
