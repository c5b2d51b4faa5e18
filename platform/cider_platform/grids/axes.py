"""The axes of a grid: what differs between its cells, from a job file or from ``--axis``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cider.errors import UsageError
from cider_platform.grids.specs import Value, field_name, flat_fields, seeds_of
from cider_platform.grids.texts import check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

VARIANT = "variant"
"""The one axis whose values are named sets of fields."""
MOST_CELLS = 100_000
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:+-]{0,59}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One value of an axis."""

    label: str
    """The value as text; a variant's name."""
    values: Mapping[str, Value]
    """Field -> value; one field unless it is a variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis; its choices in the order they stand in."""

    name: str
    choices: tuple[Choice, ...]


def read_axes(
    table: Mapping[str, Any], given: Sequence[str]
) -> tuple[tuple[Axis, ...], tuple[int, ...]]:
    """Return the axes, and the seeds if they are named.

    Args:
        table: ``[axes]``.
        given: ``--axis NAME=VALUE,VALUE``; replaces an axis of the table, in its place, or comes
            after them; a variant is named by its name.

    Raises:
        UsageError: for an unknown axis, no value, or the same value twice.
    """
    axes, seeds = _in_file(table)
    named: set[str] = set()
    for text in given:
        name, equals, rest = text.partition("=")
        if not (name and equals and rest):
            raise UsageError(f"--axis must be NAME=VALUE,VALUE, e.g. seed=0:8, got {text!r}")
        check_text(f"--axis {name}", rest.replace(",", ""))
        name = name if name in (VARIANT, "seed") else field_name("--axis", name)
        if name in named:
            raise UsageError(f"--axis {name} is given twice; put all its values into one")
        named.add(name)
        if name == "seed":
            seeds = tuple(seeds_of("--axis seed", rest))
        elif name == VARIANT:
            axes[VARIANT] = _named_variants(axes.get(VARIANT), rest.split(","))
        else:
            axes[name] = _axis(name, rest.split(","))
    if len(set(seeds)) < len(seeds):
        raise UsageError("the axis seed has the same seed twice; keep one of them")
    if math.prod(len(axis.choices) for axis in axes.values()) > MOST_CELLS:
        raise UsageError(f"the axes make more than {MOST_CELLS:,} cells; make several jobs of them")
    return tuple(axes.values()), seeds


def _in_file(table: Mapping[str, Any]) -> tuple[dict[str, Axis], tuple[int, ...]]:
    """Return the axes of ``[axes]`` in the order they stand in, and the seeds."""
    seeds: tuple[int, ...] = ()
    axes: dict[str, Axis] = {}
    for key, value in table.items():
        if key == VARIANT:
            axes[VARIANT] = _variants(value)
        elif key == "seed":
            seeds = tuple(seeds_of("axes.seed", value))
        else:
            for name, inner in flat_fields("[axes]", {key: value}).items():
                if name in axes:
                    raise UsageError(f"[axes] names {name} twice; keep one")
                axes[name] = _axis(name, inner)
    return axes, seeds


def _axis(name: str, values: object) -> Axis:
    listed = values if isinstance(values, list) else [values]
    if not listed or any(isinstance(each, list | dict) for each in listed):
        raise UsageError(
            f"the axis {name} must be a list of at least one text, number, true or false; sets of "
            f"fields are [[axes.variant]]; got {str(values)[:60]}"
        )
    return _checked(Axis(
        name=name,
        choices=tuple(Choice(label=label(each), values={name: each}) for each in listed),
    ))  # fmt: skip


def _variants(tables: object) -> Axis:
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise UsageError(
            "the axis variant is written as [[axes.variant]] tables, each with a name and the "
            f"fields it sets; got {str(tables)[:60]}"
        )
    choices = []
    for table in tables:
        name = table.get("name")
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise UsageError(
                "every [[axes.variant]] has a name of letters, digits, blanks and _ . : + -, at "
                f"most 60; got {str(name)[:60]!r}"
            )
        inner = {key: value for key, value in table.items() if key != "name"}
        values = flat_fields(f"variant {name}", inner)
        if "seed" in values:
            raise UsageError(f"variant {name} sets the seed; seeds are an axis of their own")
        choices.append(Choice(label=name, values=values))
    return _checked(Axis(name=VARIANT, choices=tuple(choices)))


def _named_variants(axis: Axis | None, names: Iterable[str]) -> Axis:
    known = {} if axis is None else {choice.label: choice for choice in axis.choices}
    wanted = list(names)
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"this job has no variant {name!r}; known: {', '.join(known) or 'none'}"
            )
    return _checked(Axis(name=VARIANT, choices=tuple(known[name] for name in wanted)))


def _checked(axis: Axis) -> Axis:
    labels = [choice.label for choice in axis.choices]
    if not labels or len(set(labels)) < len(labels):
        raise UsageError(
            f"the axis {axis.name} needs at least one value and none twice, got {', '.join(labels)}"
        )
    return axis


def label(value: Value) -> str:
    """Return a value as ``--axis`` and ``--where`` write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_exclude(
    tables: object, in_file: Mapping[str, Any], axes: Sequence[Axis]
) -> tuple[Mapping[str, tuple[str, ...]], ...]:
    """Return what is left out: for each partial assignment the axes' values as texts.

    Args:
        tables: ``[[exclude]]`` tables, or one ``[exclude]`` table; a value may be a list.
        in_file: ``[axes]`` of the file: what it names there, exclude may name too.
        axes: the axes as the command line left them.

    Raises:
        UsageError: for something that is no axis, or a value that the file's axis does not have.
    """
    listed = [tables] if isinstance(tables, dict) else tables
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise UsageError(f"[[exclude]] are tables of axes and values, got {str(tables)[:60]}")
    written = _in_file(in_file)[0] if listed else {}
    found = []
    for table in listed:
        partial: dict[str, tuple[str, ...]] = {}
        for key, value in table.items():
            name = key if key == VARIANT else field_name("[[exclude]]", key)
            axis = written.get(name) or next((each for each in axes if each.name == name), None)
            if axis is None:
                raise UsageError(
                    f"[[exclude]] names {name}, which is no axis of this job; axes are "
                    f"{', '.join(written) or 'none'}"
                )
            texts = tuple(map(label, value if isinstance(value, list) else [value]))
            known = [choice.label for choice in axis.choices]
            for text in texts:
                if text not in known:
                    raise UsageError(
                        f"[[exclude]] names {name} = {text}, a value the axis does not have: "
                        f"{', '.join(known)}"
                    )
            partial[name] = texts
        if not partial:
            raise UsageError("an [[exclude]] table is empty and would leave out every cell")
        found.append(partial)
    return tuple(found)
