"""Links of every page lead to a file or heading; paths it names in prose are there."""

from __future__ import annotations

import re
from urllib.parse import unquote

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
PATH = re.compile(r"`((?:cider|platform|tests|jobs|docs|benchmarks)/[\w./*-]*)`")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def _anchors(text: str) -> set[str]:
    """Return the anchors that headings get: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+\s+(.+?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_of_every_page_lead_to_something(pages):
    broken = []
    for page in pages:
        for link in LINK.findall(page.prose):
            if ELSEWHERE.match(link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (page.path.parent / path).resolve() if path else page.path
            if not target.exists():
                broken.append(f"{page.name}: {link}")
            elif anchor and anchor not in _anchors(target.read_text(encoding="utf-8")):
                broken.append(f"{page.name}: no heading for {link}")
    assert not broken


def test_links_are_found_at_all(pages):
    readme = next(page for page in pages if page.name == "README.md")
    assert "docs/architecture.md" in LINK.findall(readme.prose)


def test_paths_of_the_repository_named_in_prose_exist(pages, root):
    """A path may hold ``*``; one that is named because it must not exist is no such path."""
    forbidden = {"platform/__init__.py", "tests/platform"}
    missing = [
        f"{page.name}: {path}"
        for page in pages
        for path in PATH.findall(page.prose)
        if path not in forbidden and not any(root.glob(path.rstrip("/")))
    ]
    assert not missing
