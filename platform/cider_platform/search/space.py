"""The search space: which fields of a run's spec are searched, and over what.

An axis is written ``path=kind:...``: ``model.layers=int:1:4``, ``loss.joint=float:0:1:0.1``,
``optimizer.lr=log:1e-4:1e-2``, ``model.heads=choice:1,2,4,8``. No search library is imported here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from cider.config import field_types, to_dict, with_field
from cider.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cider.spec import RunSpec

Value = bool | int | float | str
Kind = Literal["int", "float", "log", "choice"]
FORMS = (
    "path=int:LOW:HIGH[:STEP], path=float:LOW:HIGH[:STEP], path=log:LOW:HIGH or path=choice:A,B,..."
)

# A study compares configurations on one cell: what decides the data or the score is not searched.
_NOT_SEARCHED = ("data.", "selection.", "missing.protocol", "missing.kept", "missing.mask_source")
_FILLED_IN = ("text_encoder.weights_sha256",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One searched field; ``low``, ``high`` and ``step`` for ranges, ``choices`` for lists."""

    path: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "choice":
            if len(set(self.choices)) < 2 or len(set(self.choices)) != len(self.choices):
                raise UsageError(
                    f"--space {self.path}: a choice has at least two different values, got "
                    f"{', '.join(map(str, self.choices)) or 'none'}"
                )
            return
        if not self.low < self.high:
            raise UsageError(
                f"--space {self.path}: the lower end must be below the upper end, got "
                f"{self.low:g} and {self.high:g}"
            )
        if self.kind == "log" and self.low <= 0:
            raise UsageError(f"--space {self.path}: a log range begins above 0, got {self.low:g}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise UsageError(
                f"--space {self.path}: the step must be above 0 and at most the width of the "
                f"range, got {self.step:g}"
            )

    def value(self, drawn: Value) -> Value:
        """Return a drawn value as the spec stores it.

        Steps accumulate binary rounding (3 x 0.1 is 0.30000000000000004), which would make two run
        ids of one configuration: stepped values are rounded to 10 digits.
        """
        if isinstance(drawn, float) and self.step is not None:
            return round(drawn, 10)
        return drawn

    def ends(self) -> tuple[Value, ...]:
        """Return the values that show whether the whole axis fits its field."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "int":
            return (int(self.low), int(self.high))
        return (self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return the axis as JSON values."""
        return to_dict(self)

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"{self.path}=choice:{','.join(map(_text, self.choices))}"
        step = "" if self.step is None else f":{self.step:g}"
        return f"{self.path}={self.kind}:{self.low:g}:{self.high:g}{step}"


Space = tuple[Axis, ...]

TABLE_II: Space = (
    Axis(path="model.layers", kind="int", low=1, high=4),
    Axis(path="model.heads", kind="choice", choices=(1, 2, 4, 8)),
    Axis(path="model.attention_dropout", kind="float", low=0.0, high=0.5, step=0.1),
    Axis(path="model.embedding_dropout", kind="float", low=0.0, high=0.5, step=0.1),
    Axis(path="model.output_dropout", kind="float", low=0.0, high=0.5, step=0.1),
    Axis(path="loss.reconstruction", kind="float", low=0.0, high=1.0, step=0.1),
    Axis(path="loss.attention", kind="float", low=0.0, high=1.0, step=0.1),
    Axis(path="loss.joint", kind="float", low=0.0, high=1.0, step=0.1),
)
"""The published search space of CIDer (Table II)."""


def default_space(spec: RunSpec, fixed: Iterable[str] = ()) -> Space:
    """Return the space searched when none is asked for.

    Args:
        spec: the base spec; its model decides. CIDer has Table II; any other model its own dropout
            fields, the weight of the joint loss and the learning rate.
        fixed: paths the user has set; a field that was set is not searched.
    """
    if spec.model.name == "cider":
        axes = TABLE_II
    else:
        dropouts = [name for name in field_types(type(spec.model)) if name.endswith("dropout")]
        axes = (
            *(Axis(path=f"model.{n}", kind="float", low=0, high=0.5, step=0.1) for n in dropouts),
            Axis(path="loss.joint", kind="float", low=0.0, high=1.0, step=0.1),
            Axis(path="optimizer.lr", kind="log", low=1e-4, high=1e-2),
        )
    return tuple(axis for axis in axes if axis.path not in set(fixed))


def read_space(
    texts: Sequence[str],
    spec: RunSpec,
    fixed: Iterable[str] = (),
    from_file: Sequence[Axis] = (),
) -> Space:
    """Return the space asked for on the command line, checked against the spec.

    Args:
        texts: values of ``--space``; none means the default, and the word ``default`` among them
            adds to it instead of replacing it.
        spec: the base spec; every end and every choice must be a value its fields accept.
        fixed: paths that ``--set`` has set.
        from_file: axes of ``--space-file``, before those of the command line.

    Raises:
        UsageError: for a text that is no axis, an unknown field, a value the field refuses, a field
            that is both set and searched or named twice, or an empty space.
    """
    axes = [*from_file, *(parse_axis(text) for text in texts if text != "default")]
    both = sorted({axis.path for axis in axes} & set(fixed))
    if both:
        raise UsageError(f"{both[0]} is both set and searched; leave out --set or --space for it")
    if not axes or "default" in texts:
        named = {axis.path for axis in axes}
        axes = [axis for axis in default_space(spec, fixed) if axis.path not in named] + axes
    check_space(axes, spec)
    return tuple(axes)


def check_space(axes: Sequence[Axis], spec: RunSpec) -> None:
    """Raise ``UsageError`` unless every axis fits the spec (see ``read_space``)."""
    if not axes:
        raise UsageError(f"the search space is empty: name a field with --space {FORMS}")
    seen: set[str] = set()
    for axis in axes:
        if axis.path in seen:
            raise UsageError(f"--space names {axis.path} twice; keep one")
        seen.add(axis.path)
        if axis.path.startswith(_NOT_SEARCHED) or axis.path in _FILLED_IN:
            raise UsageError(
                f"{axis.path} cannot be searched: it decides the data or the score, so that scores "
                "would not be comparable; make one study for each value"
            )
        for end in axis.ends():
            with_field(spec, axis.path, end)
        if axis.kind in ("float", "log") and isinstance(_current(spec, axis.path), int):
            raise UsageError(f"--space {axis.path}: the field is a whole number; use int or choice")


def _current(spec: RunSpec, path: str) -> object:
    value: object = spec
    for name in path.split("."):
        value = getattr(value, name)
    return value


def apply(spec: RunSpec, values: Mapping[str, Value]) -> RunSpec:
    """Return the spec with the searched fields set.

    Raises:
        UsageError: if the values do not go together, e.g. heads that do not divide the width.
    """
    for path, value in values.items():
        spec = with_field(spec, path, value)
    return spec


def parse_axis(text: str) -> Axis:
    """Read one axis.

    Raises:
        UsageError: if the text has none of the forms of ``FORMS``.
    """
    path, equals, rest = text.partition("=")
    kind, colon, body = rest.partition(":")
    if not (path and equals and colon and body):
        raise UsageError(f"--space must be {FORMS}, got {text!r}")
    if kind == "choice":
        return Axis(path=path, kind="choice", choices=tuple(map(literal, body.split(","))))
    if kind not in ("int", "float", "log"):
        raise UsageError(
            f"--space {path}: the kind must be int, float, log or choice, got {kind!r}"
        )
    numbers = [_number(path, part) for part in body.split(":")]
    if len(numbers) not in (2, 3) or (kind == "log" and len(numbers) == 3):
        raise UsageError(f"--space must be {FORMS}, got {text!r}")
    if kind == "int" and any(number != int(number) for number in numbers):
        raise UsageError(f"--space {path}: an int range has whole numbers, got {body}")
    step = numbers[2] if len(numbers) == 3 else None
    return Axis(path=path, kind=kind, low=numbers[0], high=numbers[1], step=step)  # type: ignore[arg-type]


def axis_from_dict(values: Mapping[str, Any]) -> Axis:
    """Read an axis written by ``Axis.to_dict``."""
    known = {field.name for field in fields(Axis)}
    kept = {name: value for name, value in values.items() if name in known}
    return Axis(**{**kept, "choices": tuple(kept.get("choices", ()))})


def _number(path: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--space {path}: {text!r} is not a number")
    return number


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def literal(text: str) -> Value:
    """Return a choice as a truth value, a whole number, a number or text, whichever it reads as."""
    if text in ("true", "false"):
        return text == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
