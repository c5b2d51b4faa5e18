"""The README's two marked commands, which do all set-up, and what continuous integration calls."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest


def _marked(text: str, name: str) -> str:
    """Return the fenced block right after a marker line."""
    blocks = re.findall(
        rf"^<!-- fresh:{name} -->\n```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 1, f"README.md has {len(blocks)} blocks marked fresh:{name}"
    return blocks[0].strip()


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def _dry_run(root: Path, command: str) -> str:
    """Return the commands that a make command would run in a fresh clone (all targets remade).

    The suite itself runs under make (`make test`): its flags and level must not reach this make,
    which would then print the directories it enters.
    """
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        [*command.split(), "--dry-run", "--always-make"],
        cwd=root,
        env={**outside, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_command_installs_with_constraints_and_searches_the_embedded_corpus(readme, root):
    commands = _dry_run(root, _marked(readme, "run"))
    assert "install --constraint constraints.txt" in commands
    assert commands.strip().endswith("cider-platform tune --dataset synthetic-mosei")


def test_test_command_installs_with_constraints_and_checks_style_types_and_behaviour(readme, root):
    commands = _dry_run(root, _marked(readme, "test"))
    assert "install --constraint constraints.txt" in commands
    for tool in ("ruff check .", "ruff format --check .", "mypy", "-m pytest"):
        assert f"{tool}\n" in commands


def test_continuous_integration_calls_the_test_command_and_the_long_one_alone(readme, root: Path):
    script = (root / ".ci" / "run").read_text(encoding="utf-8")
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert commands[0] == "set -euo pipefail"
    assert commands[1].startswith("cd ")
    assert commands[2:] == [_marked(readme, "test"), "make long"]
    assert "`make long`" in readme


def test_long_command_names_test_files_that_are_there(root: Path):
    (line,) = [line for line in _dry_run(root, "make long").splitlines() if "-m pytest" in line]
    assert '-m "slow or chaos or cluster"' in line
    named = re.findall(r"tests/\S+", line)
    assert len(named) >= 5
    assert all((root / each).exists() for each in named)
