"""The page about looking into a run names the steps, numbers and figures that there are."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from cider_platform.commands import draw
from cider_platform.explaining.embedding import EXTRA, Separation
from cider_platform.explaining.render import MEANINGS


@pytest.fixture(scope="module")
def text(root):
    return (root / "docs/explaining.md").read_text(encoding="utf-8")


def first_cells(text, heading):
    (found,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    return [row.strip("|").split("|")[0].strip(" `") for row in found.splitlines()]


def test_steps_are_those_of_a_correction_in_order(text):
    assert first_cells(text, "Step") == list(MEANINGS)


def test_numbers_are_those_of_a_separation(text):
    names = [each.lower() for each in first_cells(text, "Number")]
    assert names == [field.name for field in fields(Separation)]
    assert f"the extra `{EXTRA}`" in text


def test_every_figure_that_draw_makes_is_listed(text):
    drawn = [command.name for command in draw.app.registered_commands]
    assert drawn
    missing = [name for name in drawn if f"| `cider-platform draw {name}` |" not in text]
    assert not missing
