"""Read, change and serialise configurations; a fault names the field and what is allowed.

A configuration is a frozen, keyword-only dataclass of numbers, text, booleans, tuples and further
configurations. Values arrive as text (``--set model.layers=2``) or as parsed JSON or TOML.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cider.errors import UsageError

C = TypeVar("C")


def field_types(config_class: type) -> dict[str, Any]:
    """Return the resolved type of every field of a configuration class, in order."""
    return dict(_resolved_types(config_class))


@functools.cache  # a grid of thousands of cells reads the same few classes again and again
def _resolved_types(config_class: type) -> dict[str, Any]:
    hints = get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


def _describe(expected: Any) -> str:  # noqa: ANN401 - a type annotation can be anything
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(str, get_args(expected)))
    if get_origin(expected) is tuple:
        return f"a list of {_describe(get_args(expected)[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(expected, str(expected))


def _refuse(path: str, value: object, expected: Any) -> UsageError:  # noqa: ANN401
    return UsageError(f"{path} must be {_describe(expected)}, got {value!r}")


def _coerce_tuple(path: str, value: object, expected: Any) -> tuple[Any, ...]:  # noqa: ANN401
    (item_type, *_) = get_args(expected)
    if isinstance(value, str):
        value = [part for part in value.strip("[]() ").split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise _refuse(path, value, expected)
    return tuple(coerce(path, item, item_type) for item in value)


def _coerce_number(path: str, value: object, expected: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _refuse(path, value, expected)
    try:
        number = expected(value)
    except ValueError:
        raise _refuse(path, value, expected) from None
    if expected is int and float(value) != number:
        raise _refuse(path, value, expected)
    if not math.isfinite(number):
        raise _refuse(path, value, expected)
    return typing.cast("int | float", number)


def _coerce_bool(path: str, value: object) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise _refuse(path, value, bool)


def coerce(path: str, value: object, expected: Any) -> Any:  # noqa: ANN401
    """Return ``value`` as the type a field declares.

    Args:
        path: the field's dotted path, for the message.
        value: text from a command line, or a parsed JSON or TOML value.
        expected: the field's annotation.

    Raises:
        UsageError: if the value does not fit; the message says what would.
    """
    origin = get_origin(expected)
    if origin is types.UnionType or origin is typing.Union:
        if value is None or value == "none":
            return None
        expected = next(option for option in get_args(expected) if option is not type(None))
        return coerce(path, value, expected)
    if origin is tuple:
        return _coerce_tuple(path, value, expected)
    if origin is Literal:
        if value not in get_args(expected):
            raise _refuse(path, value, expected)
        return value
    return _coerce_scalar(path, value, expected)


def _coerce_scalar(path: str, value: object, expected: Any) -> Any:  # noqa: ANN401
    if expected is bool:
        return _coerce_bool(path, value)
    if expected in (int, float):
        return _coerce_number(path, value, expected)
    if expected is str and isinstance(value, str):
        return value
    raise _refuse(path, value, expected)


def from_dict(config_class: type[C], values: dict[str, Any], path: str = "") -> C:
    """Build a configuration from parsed JSON or TOML.

    Raises:
        UsageError: for an unknown field (the known ones are named) or a value that does not fit.
    """
    known = field_types(config_class)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{path}.{name}" if path else name
        if name not in known:
            raise UsageError(f"unknown field {where!r}; known: {', '.join(known)}")
        if dataclasses.is_dataclass(known[name]):
            if not isinstance(value, dict):
                raise UsageError(f"{where} must be a table of fields, got {value!r}")
            arguments[name] = from_dict(typing.cast("type[Any]", known[name]), value, where)
        else:
            arguments[name] = coerce(where, value, known[name])
    try:
        return config_class(**arguments)
    except TypeError as error:
        raise UsageError(f"{path or config_class.__name__}: {error}") from None


def with_field(config: C, path: str, value: object) -> C:
    """Return a copy of ``config`` in which the field at a dotted path has another value.

    Raises:
        UsageError: if there is no such field, or the value does not fit it.
    """
    return _with_field(config, path.split("."), value, path)


def _with_field(config: C, names: list[str], value: object, path: str) -> C:
    name, *rest = names
    known = field_types(type(config))
    if name not in known:
        raise UsageError(f"unknown field {path!r}: {name!r} is not one of {', '.join(known)}")
    current = getattr(config, name)
    if rest:
        if not dataclasses.is_dataclass(current):
            raise UsageError(f"unknown field {path!r}: {name!r} has no fields of its own")
        changed: object = _with_field(current, rest, value, path)
    elif dataclasses.is_dataclass(current):
        inner = ", ".join(f"{path}.{field}" for field in field_types(type(current)))
        raise UsageError(f"{path!r} is a group of fields; set one of {inner}")
    else:
        changed = coerce(path, value, known[name])
    return dataclasses.replace(config, **{name: changed})  # type: ignore[type-var]


def to_dict(config: object) -> dict[str, Any]:
    """Return a configuration as nested dictionaries of JSON values."""
    assert dataclasses.is_dataclass(config)
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: object) -> Any:  # noqa: ANN401
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a configuration may not hold {type(value).__name__}: {value!r}")


def canonical_json(values: object) -> str:
    """Return the one JSON text that equal values share in every process."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def check_range(path: str, value: float, low: float, high: float) -> None:
    """Raise ``UsageError`` unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise UsageError(f"{path} must be in [{low}, {high}], got {value}")


def check_positive(path: str, value: float) -> None:
    """Raise ``UsageError`` unless ``value`` is above zero."""
    if not value > 0:
        raise UsageError(f"{path} must be above 0, got {value}")
