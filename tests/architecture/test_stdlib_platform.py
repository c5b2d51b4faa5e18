"""The folder platform/ must not hide the standard library's module of that name."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("path", ["platform/__init__.py", "platform.py", "tests/platform"])
def test_path_that_would_hide_the_standard_library_is_absent(root: Path, path):
    assert not (root / path).exists()


def test_platform_in_the_test_process_is_the_standard_library():
    assert platform.python_implementation()


def test_platform_with_the_root_first_on_the_path_is_the_standard_library(root: Path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import platform, uuid;"
        "print(platform.python_implementation(), uuid.uuid4())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
