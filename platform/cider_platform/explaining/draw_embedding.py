"""The figure of joint representations: a t-SNE per run and missing rate, as the paper's Fig. 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cider_platform.figure_files import BLUE, COLOURS, GREY, ORANGE, WIDTH
from cider_platform.report.figures import shortened
from cider_platform.runs.prediction import CLASS_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from cider_platform.explaining.embedding import Panel

_LOOKS = {"negative": (ORANGE, "v"), "neutral": (GREY, "o"), "positive": (BLUE, "^")}


def draw_embedding(
    panels: Sequence[Panel], names: Sequence[str], task: str, lines: Sequence[str]
) -> Figure:
    """Draw a row of panels per run, a column per condition.

    Args:
        panels: run after run.
        names: of the runs.
        task: of the runs.
        lines: heading.
    """
    columns = len(panels) // len(names)
    size = min(WIDTH / columns, 3.0)
    figure = Figure(figsize=(WIDTH, 1.2 + (size + 0.7) * len(names)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09)  # type: ignore[union-attr, call-arg]
    # The last row has the legend, too.
    ratios = [1.0] * (len(names) - 1) + [1.0 + 0.3 / size]
    rows = figure.subfigures(len(names), 1, squeeze=False, height_ratios=ratios)[:, 0]
    classes = CLASS_NAMES[task]
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        row.suptitle(shortened(name, 100), fontsize=9)
        axes_of_row = row.subplots(1, columns, squeeze=False)[0]
        own = panels[number * columns : (number + 1) * columns]
        for axes, panel in zip(axes_of_row, own, strict=True):
            _draw_panel(axes, panel, classes)
    figure.suptitle("\n".join(shortened(line, 100) for line in lines), fontsize=10)
    handles, labels = rows[0].axes[0].get_legend_handles_labels()
    rows[-1].legend(handles, labels, loc="outside lower center", ncols=len(classes), frameon=False)
    return figure


def _draw_panel(axes: Axes, panel: Panel, classes: Sequence[str]) -> None:
    colours = mpl.colormaps[COLOURS](np.linspace(0, 1, len(classes)))
    markers = ["v"] * (len(classes) // 2) + ["o"] + ["^"] * (len(classes) // 2)
    for number, name in enumerate(classes):
        colour, marker = _LOOKS.get(name, (colours[number], markers[number]))
        points_N2 = panel.points_N2[panel.labels_N == number]
        axes.scatter(points_N2[:, 0], points_N2[:, 1], s=13, marker=marker, facecolor=colour,
                     edgecolor="white", linewidth=0.3, label=name,
                     zorder=3 - 2 * (marker == "o"))  # fmt: skip
    found = panel.separation
    axes.set_title(
        f"{panel.condition}\ncentroid {found.centroid:.2f}, silhouette {found.silhouette:.2f}\n"
        f"CKA with complete {found.cka:.2f}",
        fontsize=8,
    )
    # The axes of a t-SNE have no unit and no direction.
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_box_aspect(1)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#BBBBBB")
