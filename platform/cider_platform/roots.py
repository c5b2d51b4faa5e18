"""The two root folders: feature store and results. Option first, then environment, then home."""

from __future__ import annotations

import os
from pathlib import Path

from cider.errors import UsageError

STORE_VARIABLE = "CIDER_STORE"
RESULTS_VARIABLE = "CIDER_RESULTS"


def store_root(option: Path | None = None) -> Path:
    """Return the feature store's root folder, absolute; it need not exist.

    Args:
        option: what ``--store`` gave; None looks at CIDER_STORE, then the user's data folder.

    Raises:
        UsageError: if the name is taken by something that is no folder.
    """
    return _root(option, "--store", STORE_VARIABLE, "store")


def results_root(option: Path | None = None) -> Path:
    """Return the root folder of runs and studies, absolute; it need not exist.

    Args:
        option: what ``--results`` gave; None looks at CIDER_RESULTS, then the user's data folder.

    Raises:
        UsageError: if the name is taken by something that is no folder.
    """
    return _root(option, "--results", RESULTS_VARIABLE, "results")


def _root(option: Path | None, flag: str, variable: str, leaf: str) -> Path:
    from_environment = os.environ.get(variable)
    if option is not None:
        root = option
    elif from_environment:
        root = Path(from_environment)
    else:
        root = _user_data() / "cider-platform" / leaf
    root = root.expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise UsageError(f"{flag} (or {variable}) must name a folder, {root} is a file")
    return root


def _user_data() -> Path:
    # The XDG specification says that a relative path is to be ignored.
    folder = Path(os.environ.get("XDG_DATA_HOME", ""))
    return folder if folder.is_absolute() else Path.home() / ".local" / "share"
