"""Fixtures of the platform's tests."""

import sys

import pytest
from tiny_corpus import write_tiny_corpus

from cider_platform.cli import main
from cider_platform.runs.assembly import Runtime


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


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Root of a feature store with the tiny corpus."""
    root = tmp_path_factory.mktemp("store")
    write_tiny_corpus(root)
    return root


@pytest.fixture
def runtime(store, tmp_path):
    """Where runs of that store execute: results of their own for every test."""
    return Runtime(store, tmp_path / "results", threads=1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, and none of Ray's variables, so that no token is found."""
    for name in (
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_AUTH_MODE",
        "RAY_API_SERVER_ADDRESS",
        "RAY_ADDRESS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path
