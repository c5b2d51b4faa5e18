"""The figure of word-label association: training against test, one panel per corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from cider_platform.figure_files import BLUE, GREEN, GREY, ORANGE, WIDTH
from cider_platform.report.figures import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from cider_platform.explaining.association import Association

_NAMED = 8
"""Most words of a panel that are named: those that shift farthest."""
_CORPORA = ((BLUE, "-"), (ORANGE, "--"), (GREEN, ":"), (GREY, "-."))
MOST = len(_CORPORA)
"""Most corpora in one figure."""
_BINS = np.linspace(-1.0, 1.0, 41)
_CLOSEST = (0.24, 0.055)
"""Two names whose places differ by less, across and down, would lie upon each other."""

_BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.6}


def draw_words(found: Sequence[Association], lines: Sequence[str]) -> Figure:
    """Draw words by their share of positive utterances, and how the differences are distributed.

    Args:
        found: one per corpus, at most ``MOST``.
        lines: heading.
    """
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    side = 3.3 if columns > 1 else 4.2
    figure = Figure(figsize=(WIDTH, 3.0 + (side + 0.5) * rows), layout="constrained")
    ratios = [(side + 0.5) * rows, 2.3]
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios)[:, 0]
    panels = above.subplots(rows, columns, squeeze=False).flatten()
    for axes, each in zip(panels, found, strict=False):
        _draw_panel(axes, each)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    above.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    _draw_differences(below.subplots(), found)
    figure.suptitle("\n".join(shortened(line, 100) for line in lines), fontsize=10)
    return figure


def _draw_panel(axes: Axes, each: Association) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="no shift")
    sizes_W = 10 + 60 * each.count_W / each.count_W.max()
    for is_bias, colour, marker, name in (
        (False, BLUE, "o", "word"),
        (True, ORANGE, "^", "bias word of the run"),
    ):
        shown = each.is_bias_W == is_bias
        axes.scatter(each.train_W[shown], each.test_W[shown], s=sizes_W[shown], marker=marker,
                     facecolor=colour, alpha=0.6, edgecolor="white", linewidth=0.3, label=name,
                     zorder=3)  # fmt: skip
    placed: list[tuple[float, float]] = []
    for word in np.argsort(-np.abs(each.train_W - each.test_W), kind="stable"):
        place = (float(each.train_W[word]), float(each.test_W[word]))
        if len(placed) == _NAMED:
            break
        if any(
            abs(place[0] - x) < _CLOSEST[0] and abs(place[1] - y) < _CLOSEST[1] for x, y in placed
        ):
            continue
        placed.append(place)
        is_right = place[0] > 0.7
        axes.annotate(shortened(each.vocabulary.word(int(each.token_W[word])), 14), place,
                      xytext=(-4 if is_right else 4, 2), textcoords="offset points", fontsize=7,
                      ha="right" if is_right else "left", zorder=4,
                      bbox=_BEHIND)  # fmt: skip
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    axes.set_xlabel("positive among training utterances")
    axes.set_ylabel("positive among test utterances")
    axes.set_box_aspect(1)
    axes.set_title(
        f"{shortened(each.corpus, 40)}\n{len(each.token_W)} words, word shift {each.shift:.3f} "
        f"(chance {each.chance:.3f})",
        fontsize=8.5,
    )


def _draw_differences(axes: Axes, found: Sequence[Association]) -> None:
    for each, (colour, dashes) in zip(found, _CORPORA, strict=False):
        differences_W = each.test_W - each.train_W
        shares, _ = np.histogram(differences_W, _BINS)
        axes.stairs(shares / len(differences_W), _BINS, color=colour, linestyle=dashes,
                    linewidth=1.5, label=shortened(each.corpus, 40))  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="share of positive in test less that in training", ylabel="share of words")
    axes.legend(frameon=False, fontsize=8)
