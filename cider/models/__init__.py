"""Every model is one folder here, or one entry point of a user's package; names come from listing.

A model folder has ``config.py`` with a frozen, torch-free ``Config`` that can ``build`` the model.
A user's own package registers its config class under the entry-point group ``cider.models``.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cider.registry import lookup

ENTRY_POINT_GROUP = "cider.models"


def _folders() -> dict[str, str]:
    return {
        module.name: f"{__name__}.{module.name}.config"
        for module in pkgutil.iter_modules(__path__)
        if module.ispkg
    }


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def names() -> list[str]:
    """Return the name of every model: the folders here, then users' entry points."""
    return sorted({*_folders(), *_plugins()})


def config_class(name: str) -> type[Any]:
    """Return the configuration class of a model, importing neither torch nor the model.

    Raises:
        UsageError: if there is no such model; the message lists those there are.
    """
    # Looking for entry points reads what every installed package says of itself: only if need be.
    known: dict[str, EntryPoint | str] = {**_folders()}
    if name not in known:
        known |= _plugins()
    found = lookup("model", name, known)
    if isinstance(found, EntryPoint):
        loaded: type[Any] = found.load()
        return loaded
    config: type[Any] = import_module(found).Config
    return config
