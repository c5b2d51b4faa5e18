"""Write a figure in the style of all figures: as one file, or as PNG and SVG."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib as mpl

from cider_platform.layout import write_bytes_atomic
from cider_platform.search.plots import STYLE, figure_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

WIDTH = 7.2
"""Inches, of a page's text."""


def write_figure(path: Path, suffix: str, draw: Callable[[], Figure]) -> None:
    """Draw a figure and write it as ``png`` or ``svg``, whole or not at all."""
    with mpl.rc_context(STYLE):
        write_bytes_atomic(path, figure_file(draw(), suffix))


def write_both(folder: Path, name: str, draw: Callable[[], Figure]) -> list[Path]:
    """Draw a figure once and write it as PNG and SVG; return the files."""
    written = []
    with mpl.rc_context(STYLE):
        figure = draw()
        for suffix in ("png", "svg"):
            path = folder / f"{name}.{suffix}"
            write_bytes_atomic(path, figure_file(figure, suffix))
            written.append(path)
    return written


def file_name(text: str) -> str:
    """Return a text, such as an utterance's id, as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:80]
