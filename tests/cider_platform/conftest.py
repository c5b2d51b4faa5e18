"""Fixtures of the platform's tests."""

import sys

import pytest

from cider_platform.cli import main


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Run a command in this process; return exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cider-platform", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
