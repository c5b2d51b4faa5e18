"""What the documentation tests share: every markdown file and its fenced blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("cider", "platform", "jobs", "docs", "benchmarks", "tests")


@dataclass(frozen=True, slots=True)
class Page:
    """A markdown file."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Path from the repository's root."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def fenced(self) -> list[str]:
        """Contents of its fenced blocks."""
        return re.findall(r"^```[^\n]*\n(.*?)^```", self.text, flags=re.MULTILINE | re.DOTALL)

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return re.sub(r"^```.*?^```", "", self.text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def pages() -> list[Page]:
    """Return every markdown file of the repository."""
    paths = [*ROOT.glob("*.md")]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")]
    return [Page(path, path.read_text(encoding="utf-8")) for path in sorted(paths)]
