"""Figures of attention per modality subset: maps of one utterance, and shares of modalities."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cider.modality import Modality
from cider_platform.explaining.attention import name_of
from cider_platform.figure_files import COLOURS, WIDTH
from cider_platform.report.figures import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from cider_platform.explaining.attention import SampleAttention, Shares, SubsetMap

_LIGHT = 0.6
"""Above this part of the scale a cell is light, and its words are black."""
_MOST_WORDS = 40
"""More cannot be read below a panel as wide as a page."""
_ENDS = (0.01, 0.99)
"""Quantiles of all cells at which the colours end: single peaks would leave the rest alike."""


def draw_maps(attention: SampleAttention, words: Sequence[str], lines: Sequence[str]) -> Figure:
    """Draw the attention of every subset, and what each word gets in the first of them.

    Args:
        attention: of one utterance.
        words: the tokens of its text.
        lines: heading.
    """
    maps = attention.maps
    grid = ["abcd", "efgx"] if len(maps) > 1 else ["aaax"]
    shows_words = len(words) == maps[0].steps[0] and 0 < len(words) <= _MOST_WORDS
    heights = [2.1 if len(maps) > 1 else 4.6] * len(grid) + [1.3] * shows_words
    figure = Figure(figsize=(WIDTH, 0.8 + sum(heights)), layout="constrained")
    panels = figure.subplot_mosaic(
        [list(row) for row in [*grid, "w" * len(grid[0])][: len(heights)]], height_ratios=heights
    )
    cells = np.concatenate([each.relative().ravel() for each in maps])
    dark, bright = np.quantile(cells, _ENDS)
    # At least this wide, or an even attention would look like a pattern.
    scale = Normalize(min(float(dark), 0.8), max(float(bright), 1.25))
    for letter, each in zip("abcdefg", maps, strict=False):
        _draw_map(panels[letter], each, scale)
    corner = panels["x"]
    corner.axis("off")
    corner.set_box_aspect(1 if len(maps) > 1 else None)
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), extend="both",
                          cax=corner.inset_axes((0.0, 0.0, 0.09, 1.0)))  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)
    corner.text(0.36, 0.5, "attention,\n1: even\n\nrow: query\ncolumn: key",
                transform=corner.transAxes, va="center", fontsize=8)  # fmt: skip
    if shows_words:
        _draw_words(panels["w"], maps[0], words, scale)
    figure.suptitle("\n".join(shortened(line, 100) for line in lines), fontsize=10)
    return figure


def _draw_map(axes: Axes, each: SubsetMap, scale: Normalize) -> None:
    axes.imshow(each.relative(), cmap=COLOURS, norm=scale, aspect="auto", interpolation="nearest")
    ends = list(accumulate(each.steps))
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color="white", linewidth=1)
        axes.axvline(end - 0.5, color="white", linewidth=1)
    present = [
        (modality.letter, end - steps / 2 - 0.5)
        for modality, steps, end in zip(each.subset, each.steps, ends, strict=True)
        if steps
    ]
    letters, middles = [letter for letter, _ in present], [middle for _, middle in present]
    axes.set_xticks(middles, letters)
    axes.set_yticks(middles, letters)
    axes.tick_params(length=0)
    axes.set_title(f"subset {name_of(each.subset)}", fontsize=9)
    axes.set_box_aspect(1)
    axes.grid(visible=False)


def _draw_words(axes: Axes, each: SubsetMap, words: Sequence[str], scale: Normalize) -> None:
    """Draw what every word gets from the queries of each modality, as multiples of even."""
    starts = [0, *accumulate(each.steps)]
    rows = [
        (modality.letter, each.relative()[start:end, : len(words)].mean(axis=0))
        for modality, start, end in zip(each.subset, starts, starts[1:], strict=False)
        if end > start
    ]
    received = np.stack([row for _, row in rows])
    axes.imshow(received, cmap=COLOURS, norm=scale, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(rows)), [f"from {letter}" for letter, _ in rows])
    axes.set_xticks(range(len(words)), [shortened(word, 14) for word in words], rotation=90,
                    fontsize=7)  # fmt: skip
    axes.tick_params(length=0)
    axes.set_title(f"subset {name_of(each.subset)}: what each word gets", fontsize=9)
    axes.grid(visible=False)


def draw_frames(attention: SampleAttention, words: Sequence[str], lines: Sequence[str]) -> Figure:
    """Draw which frames of audio and vision every word reads where WSAM aligns them.

    Args:
        attention: of one utterance.
        words: the tokens of its text.
        lines: heading.
    """
    shown = slice(1, -1)  # the start and the end token read no frames
    names = [shortened(word, 14) for word in words[shown]]
    height = 1.6 + 0.16 * min(max(len(names), 6), _MOST_WORDS)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(1, len(attention.frames), squeeze=False, sharey=True)[0]
    for axes, (modality, weights_TS) in zip(panels, attention.frames.items(), strict=True):
        relative_TS = weights_TS[shown] * weights_TS.shape[1]
        if relative_TS.size:
            top = max(1.25, float(np.quantile(relative_TS, _ENDS[1])))
            image = axes.imshow(relative_TS, cmap=COLOURS, vmin=0, vmax=top, aspect="auto",
                                interpolation="nearest")  # fmt: skip
            bar = figure.colorbar(image, ax=axes, extend="max", location="bottom", shrink=0.7)
            bar.set_label("attention, 1: even", fontsize=8)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7)
        axes.set_title(f"{weights_TS.shape[1]} {modality.value} frames", fontsize=9)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(visible=False)
    if len(names) <= _MOST_WORDS:
        panels[0].set_yticks(range(len(names)), names, fontsize=7)
    figure.suptitle("\n".join(shortened(line, 100) for line in lines), fontsize=10)
    return figure


def draw_shares(shares: Shares, lines: Sequence[str]) -> Figure:
    """Draw how attention divides among modalities, a table per subset of more than one.

    Args:
        shares: of one utterance or of a split.
        lines: heading.
    """
    shown = [
        (subset, shares_MM)
        for subset, shares_MM in zip(shares.subsets, shares.shares_GMM, strict=True)
        if len(subset) > 1
    ]
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    panels = figure.subplots(1, max(len(shown), 3), squeeze=False)[0]
    letters = [modality.letter for modality in Modality]
    for axes, (subset, shares_MM) in zip(panels, shown, strict=False):
        axes.imshow(np.ma.masked_invalid(shares_MM), cmap=COLOURS, vmin=0, vmax=1)
        for (query, key), share in np.ndenumerate(shares_MM):
            if np.isfinite(share):
                axes.text(key, query, f"{share:.0%}", ha="center", va="center", fontsize=8,
                          color="black" if share > _LIGHT else "white")  # fmt: skip
        axes.set_xticks(range(len(letters)), letters)
        axes.set_yticks(range(len(letters)), letters)
        axes.tick_params(length=0)
        axes.set_title(f"subset {name_of(subset)}", fontsize=9)
        axes.grid(visible=False)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel("row: queries; column: keys; rows add up to 100 %", fontsize=8)
    figure.suptitle("\n".join(shortened(line, 100) for line in lines), fontsize=10)
    return figure
