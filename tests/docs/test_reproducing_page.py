"""The page about reproducing names the columns, rows and counts that there are."""

from __future__ import annotations

import re

import pytest

from cider_platform.commands.complexity import COLUMNS
from cider_platform.complexity.parameters import maci_parameters, parameters_as_published
from cider_platform.complexity.variants import variants
from cider_platform.evidence.reproduce import DEFAULT_SEEDS


@pytest.fixture(scope="module")
def text(root):
    return (root / "docs/reproducing.md").read_text(encoding="utf-8")


def rows(text, heading):
    (found,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines()]


def test_every_measured_column_is_explained(text):
    named = [name for row in rows(text, "Column") for name in row[0].split(", ")]
    published = {name for name in COLUMNS if name.startswith("published")}
    assert set(named) == set(COLUMNS) - published - {"model"}


def test_measured_table_has_every_model_with_its_parameters(text):
    found = {row[0]: row[1] for row in rows(text, "Model")}
    counted = {each.name: f"{parameters_as_published(each):,.0f}" for each in variants()}
    assert found == counted
    assert f"MACI {maci_parameters():,.0f} are" in " ".join(text.split())


def test_default_seeds_are_those_of_the_prose(text):
    assert f"with the default seeds,\n  0 to {max(DEFAULT_SEEDS)}," in text
