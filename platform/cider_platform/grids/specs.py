"""From the values of a cell to the spec of its runs: short names, dotted fields, defaults.

The order is that of ``train`` and ``tune``: the dataset's defaults, the behaviour, the named
choices, then every other field. So a cell and a ``train`` command that say the same are one run.
"""

from __future__ import annotations

import functools
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from cider import missing, models
from cider.behaviour import with_behaviour
from cider.data.synthetic import canonical_name, is_synthetic
from cider.errors import UsageError
from cider.models import config_class
from cider.spec import RunSpec
from cider_platform.grids.texts import unknown
from cider_platform.layout import check_name
from cider_platform.search.search import dataset_defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = Any
"""A value of a field: truth value, number, text, or a list of numbers."""

SHORT_NAMES = {
    "dataset": "data.dataset",
    "task": "data.task",
    "alignment": "data.alignment",
    "distribution": "data.distribution",
    "model": "model.name",
    "missing": "missing.protocol",
    "kept": "missing.kept",
    "encoder": "text_encoder.source",
    "selection": "selection.rule",
}
"""What axes and ``[base]`` call some fields for short; the options of ``train`` are called so."""

BEHAVIOUR = "behaviour"
_LONG_NAMES = {path: name for name, path in SHORT_NAMES.items()}
# Found when a run is resolved: a job that said them would contradict the store.
_FILLED_IN = ("data.content_sha256", "text_encoder.weights_sha256")


def field_name(where: str, name: str, model: str | None = None) -> str:
    """Return the one name that a field of a job has: short if there is a short one, else dotted.

    Args:
        where: where it stands, for the message, e.g. ``"[base]"``.
        name: short or dotted.
        model: the model whose fields count; None allows those of every model that is known.

    Raises:
        UsageError: if no spec has such a field.
    """
    name = _LONG_NAMES.get(name, name)
    if name in SHORT_NAMES or name == BEHAVIOUR or name in _paths(model or "cider"):
        return name
    known = {*SHORT_NAMES, BEHAVIOUR}
    # Only for a name that CIDer does not have: this reads what is installed.
    for each in models.names() if model is None else [model]:
        known |= _paths(each)
    if name not in known:
        raise unknown(f"field in {where}", name, known)
    return name


@functools.cache
def _paths(model: str) -> frozenset[str]:
    """Return the dotted paths of a spec's fields, without those that have short names."""
    spec = RunSpec()
    found = {f"model.{each.name}" for each in fields(config_class(model))}
    for group in fields(spec):
        value = getattr(spec, group.name)
        if not is_dataclass(value):
            found.add(group.name)
        elif group.name != "model":
            found |= {f"{group.name}.{each.name}" for each in fields(value)}
    return frozenset(found - {*_FILLED_IN, *_LONG_NAMES})


def spec_of(values: Mapping[str, Value]) -> RunSpec:
    """Return the spec, not yet resolved, that a cell's values ask for.

    Args:
        values: by the names that ``field_name`` returns; what is absent has its default.

    Raises:
        UsageError: for a value that does not fit, or values that do not go together.
    """
    dataset = _dataset(str(values.get("dataset", RunSpec().data.dataset)))
    named = {SHORT_NAMES[name]: value for name, value in values.items() if name in SHORT_NAMES}
    named["data.dataset"] = dataset
    others = {
        name: value
        for name, value in values.items()
        if name not in SHORT_NAMES and name != BEHAVIOUR
    }
    start = _tree({**dataset_defaults(dataset).fields, **named})
    spec = with_behaviour(RunSpec.from_dict(start), str(values.get(BEHAVIOUR, "corrected")))
    merged = spec.to_dict()
    # All at once, because two fields may only fit each other.
    for path, value in others.items():
        _put(merged, path, value)
    spec = RunSpec.from_dict(merged)
    missing.uses_rate(spec.missing.protocol)  # refuses a name that is no protocol's
    return spec


def _dataset(name: str) -> str:
    check_name("dataset", name)
    return canonical_name(name) if is_synthetic(name) else name


def _tree(values: Mapping[str, Value]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        _put(tree, path, value)
    return tree


def _put(tree: dict[str, Any], path: str, value: Value) -> None:
    *groups, name = path.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[name] = value


def flat_fields(where: str, table: Mapping[str, Any], *, only: str = "") -> dict[str, Value]:
    """Return the fields of a table, whose dotted paths may be quoted keys or nested tables.

    Args:
        where: where the table stands, for the message.
        table: parsed TOML.
        only: dotted beginning of the paths inside a nested table.

    Raises:
        UsageError: for an unknown field, or one that stands there twice.
    """
    found: dict[str, Value] = {}
    for key, value in table.items():
        path = f"{only}{key}"
        inner = (
            flat_fields(where, value, only=f"{path}.")
            if isinstance(value, dict)
            else {field_name(where, path): value}
        )
        for name, each in inner.items():
            if name in found:
                raise UsageError(f"{where} names {name} twice; keep one")
            found[name] = each
    return found


_RANGE = re.compile(r"(\d{1,10}):(\d{1,10})")
_MOST_SEEDS = 10_000


def seeds_of(where: str, value: Value) -> list[int]:
    """Return seeds written as a range ``FIRST:LAST`` (LAST not included), a list or one number.

    Raises:
        UsageError: for something else, none, or more than 10,000.
    """
    found = [value] if isinstance(value, int) else value
    if isinstance(value, str) and (ends := _RANGE.fullmatch(value)):
        first, last = int(ends[1]), int(ends[2])
        found = list(range(first, min(last, first + _MOST_SEEDS + 1)))
    elif isinstance(value, str):
        found = [int(part) for part in value.split(",") if part.strip().isdigit()]
        found = found if len(found) == len(value.split(",")) else []
    fits = isinstance(found, list) and all(type(each) is int and each >= 0 for each in found)
    if not fits or not 0 < len(found) <= _MOST_SEEDS:
        raise UsageError(
            f"{where} must be FIRST:LAST (LAST not included), whole numbers with commas or a list "
            f"of them, 1 to {_MOST_SEEDS:,} in all, got {str(value)[:60]!r}"
        )
    return found
