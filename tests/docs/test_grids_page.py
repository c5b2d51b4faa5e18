"""The page about grids says what job files may hold and what states there are."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from cider_platform.grids.axes import MOST_CELLS
from cider_platform.grids.cells import expand
from cider_platform.grids.job import (
    BLOCKS,
    EvaluateBlock,
    ExecutionBlock,
    SearchBlock,
    read_job,
)
from cider_platform.grids.specs import SHORT_NAMES
from cider_platform.grids.states import STATES
from cider_platform.layout import GridFolder


@pytest.fixture(scope="module")
def text(root):
    return (root / "docs/grids.md").read_text(encoding="utf-8")


def first_column(text, heading):
    (rows,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    return [re.search(r"`\[*(\w+)\]*`", row)[1] for row in rows.splitlines()]


def test_page_is_ascii_and_says_nothing_of_a_machine(text):
    assert text.isascii()
    assert not re.search(r"https?://", text)


def test_example_is_a_job_of_as_many_cells_and_runs_as_it_says(text):
    example, variants = (
        tomllib.loads(each) for each in re.findall(r"```toml\n(.*?)```", text, re.S)
    )
    cells = expand(read_job("mine", example))
    said = re.search(r"of (\d+) cells .*?(\d+) runs", text, re.S)
    assert (len(cells), sum(len(cell.seeds) for cell in cells)) == (int(said[1]), int(said[2]))
    assert [cell.name for cell in expand(read_job("mine", variants))] == [
        "variant=whole", "variant=without MACI"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Key of `[search]`", SearchBlock),
        ("Key of `[evaluate]`", EvaluateBlock),
        ("Key of `[execution]`", ExecutionBlock),
    ],
)
def test_keys_of_a_block_are_all_listed_in_order(text, heading, kind):
    assert first_column(text, heading) == [each.name for each in dataclasses.fields(kind)]


def test_blocks_short_names_states_and_limits_are_those_of_the_code(text):
    assert first_column(text, "Block") == list(BLOCKS)
    assert first_column(text, "State") == list(STATES)
    listed = re.search(r"are also the options of `train`: (.*?)\. What", text, re.S)[1]
    assert set(re.findall(r"`(\w+)`", listed)) == {*SHORT_NAMES, "behaviour"}
    assert f"{MOST_CELLS:,} cells" in text


def test_files_page_lists_every_file_of_a_grid(root):
    text = (root / "docs/files.md").read_text(encoding="utf-8")
    (part,) = re.findall(r"^## A grid\n(.*?)^## ", text, re.M | re.S)
    grid = GridFolder(Path("root"))
    paths = [getattr(grid, name) for name in dir(GridFolder) if not name.startswith("_")]
    named = {path.name for path in paths if isinstance(path, Path)} - {"root"}
    assert set(re.findall(r"^\| `([\w.]+)` \|", part, re.M)) == named
