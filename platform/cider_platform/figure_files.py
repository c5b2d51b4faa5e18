"""How every figure looks, and how it becomes files: PNG and SVG, drawn without a display.

Colours are those of Okabe and Ito and the map cividis, which people with any colour vision can tell
apart. Optuna, which only the figures of a study need, is not imported here.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cider_platform.layout import write_bytes_atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

WIDTH = 7.2
"""Inches, of a page's text; room for the name of a study."""
BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#999999", "#009E73"
"""Of the palette by Okabe and Ito (2008)."""
COLOURS = "cividis"
STYLE: Any = {
    "font.size": 9.0,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Letters stay letters, so that a figure can be searched and edited.
    "svg.fonttype": "none",
    # The same numbers give the same file.
    "svg.hashsalt": "cider-platform",
}


def write_figure(path: Path, suffix: str, draw: Callable[[], Figure]) -> None:
    """Draw a figure and write it as ``png`` or ``svg``, whole or not at all."""
    with mpl.rc_context(STYLE):
        write_bytes_atomic(path, _content(draw(), suffix))


def write_both(folder: Path, name: str, draw: Callable[[], Figure]) -> list[Path]:
    """Draw a figure once and write it as PNG and SVG; return the files."""
    with mpl.rc_context(STYLE):
        return write_drawn(folder, name, draw())


def write_drawn(folder: Path, name: str, figure: Figure) -> list[Path]:
    """Write a figure that was drawn in ``STYLE``, which still holds; return the files."""
    written = []
    for suffix in ("png", "svg"):
        path = folder / f"{name}.{suffix}"
        write_bytes_atomic(path, _content(figure, suffix))
        written.append(path)
    return written


def _content(figure: Figure, suffix: str) -> bytes:
    """Return a figure as ``png`` or ``svg``; the same figure gives the same bytes."""
    sink = io.BytesIO()
    FigureCanvasAgg(figure)
    metadata = {"Date": None} if suffix == "svg" else {}
    figure.savefig(sink, format=suffix, dpi=150, metadata=metadata)
    return sink.getvalue()


def file_name(text: str) -> str:
    """Return a text, such as an utterance's id, as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:80]
