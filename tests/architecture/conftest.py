"""What the architecture tests share: the sources of both packages and a fresh Python."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"cider": ROOT / "cider", "cider_platform": ROOT / "platform" / "cider_platform"}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module and where it stands."""

    module: str
    """Absolute dotted name; ``from cider import spec`` is ``cider.spec``."""
    line: int
    at_runtime: bool
    """False under ``if TYPE_CHECKING``."""
    in_function: bool
    """True in a function's body: imported when called, not with the module."""


@dataclass(frozen=True, slots=True)
class Source:
    """A module of one of the two packages."""

    module: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]


def _imports(
    node: ast.AST, *, at_runtime: bool = True, in_function: bool = False
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_runtime, in_function)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import in line {child.lineno}"
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield Import(name, child.lineno, at_runtime, in_function)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(child, at_runtime=False, in_function=in_function)
        else:
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports(child, at_runtime=at_runtime, in_function=inside)


def _source(package: str, folder: Path, path: Path) -> Source:
    parts = path.relative_to(folder).with_suffix("").parts
    module = ".".join((package, *parts)).removesuffix(".__init__")
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return Source(module, path, tree, tuple(_imports(tree)))


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Return every module of both packages."""
    return [
        _source(package, folder, path)
        for package, folder in PACKAGES.items()
        for path in sorted(folder.rglob("*.py"))
    ]


@pytest.fixture(scope="session")
def run_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that runs a program in a fresh Python and gives back the JSON it prints.

    The program's last line of output is read; its working folder is empty.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    path = os.pathsep.join(str(place.parent) for place in PACKAGES.values())

    def run(program: str, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
