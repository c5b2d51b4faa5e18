"""Rules that hold for every file: size, ASCII, and nothing of one machine or one network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = ("cider", "platform", "jobs", "tests", "benchmarks", "docs", ".ci", ".github")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".csv", ""}

EXPLAIN_FROM_LINES = 400
LONGEST_LINES = 500
LONG_FILES: dict[str, str] = {}
"""Path of each file over 400 lines -> why it is one file."""

# Taken apart, so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9.])/(?:" + "|".join(("work", "root", "home")) + ")/")
REGISTRY_HOSTS = [
    f"{name}.org" for name in ("pypi", "pythonhosted", "download.pytorch", "anaconda")
]


def _texts(root: Path) -> Iterator[tuple[str, str]]:
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*"))]
    paths += sorted(path for path in root.iterdir() if path.suffix or path.name == "Makefile")
    for path in paths:
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    return dict(_texts(root))


def test_python_files_are_at_most_400_lines_or_explained(texts):
    lengths = {path: text.count("\n") for path, text in texts.items() if path.endswith(".py")}
    too_long = {path: length for path, length in lengths.items() if length > LONGEST_LINES}
    assert not too_long, f"split these: {too_long}"
    long = {path for path, length in lengths.items() if length > EXPLAIN_FROM_LINES}
    assert long == set(LONG_FILES), "split them, or say in LONG_FILES why not"


def test_python_files_are_ascii(texts):
    offences = [path for path, text in texts.items() if path.endswith(".py") and not text.isascii()]
    assert not offences


def test_files_name_no_path_of_a_machine(texts):
    offences = [
        f"{path}:{number}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not offences


def test_files_name_no_package_registry(texts):
    offences = [
        f"{path}: {host}" for path, text in texts.items() for host in REGISTRY_HOSTS if host in text
    ]
    assert not offences


def test_tests_are_no_package(texts):
    """With __init__.py files, two tests of one name in different folders would hide each other."""
    offences = [path for path in texts if path.startswith("tests/") and "__init__.py" in path]
    assert not offences
