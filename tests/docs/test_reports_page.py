"""The page about reports names the formats, endings and figures that there are."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from cider_platform.commands.report import ENDINGS
from cider_platform.report.figures import KINDS, MOST
from cider_platform.report.writers import Format


@pytest.fixture(scope="module")
def text(root):
    return (root / "docs/reports.md").read_text(encoding="utf-8")


def rows(text, heading):
    (found,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    return [[cell.strip("` ") for cell in row.strip("|").split("|")] for row in found.splitlines()]


def test_formats_and_endings_are_those_of_the_command(text):
    told = {row[1]: row[0] for row in rows(text, "Format")}
    assert told == ENDINGS
    assert set(told.values()) == set(get_args(Format))


def test_every_kind_of_figure_is_listed(text):
    assert [row[0].split("-")[0] for row in rows(text, "File")] == list(KINDS)
    assert f"At most {MOST}\nconfigurations" in text
