"""Names of synthetic corpora: ``synthetic-mosei`` and its variants.

``synthetic-<corpus>[-x<scale>][-v<validation shift>][-s<seed>]``, for example
``synthetic-mosei-x0.05`` or ``synthetic-mosi-v0-s7``. What a name does not say has its default; a
name and its canonical form (defaults left out) are the same corpus. Imports nothing heavy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cider.errors import UsageError

PREFIX = "synthetic-"
DEFAULT_SCALES = {"mosi": 1.0, "mosei": 0.1}
"""Share of the real corpus's size; MOSEI's is small enough to search on a laptop."""
DEFAULT_VALIDATION_SHIFT = 0.5
"""Half-way: tau can only be chosen where validation shows some of the shift; see the docs."""
_DIGITS = 6
"""Decimal places of the numbers in a name."""
_NUMBER = r"\d+(?:\.\d+)?"
_NAME = re.compile(
    rf"{PREFIX}(?P<corpus>{'|'.join(DEFAULT_SCALES)})"
    rf"(?:-x(?P<scale>{_NUMBER}))?(?:-v(?P<shift>{_NUMBER}))?(?:-s(?P<seed>\d+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticName:
    """What the name of a synthetic corpus says."""

    corpus: str
    """``mosi`` or ``mosei``."""
    scale: float
    """Share of the real corpus's size, in (0, 1]."""
    validation_shift: float
    """How far OOD validation lies between training (0) and test (1)."""
    seed: int
    """Seeds everything that is drawn; 0 or more."""

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise UsageError(
                f"scale must be above 0 and at most 1, got {self.scale:g}; "
                "1 is the real corpus's size"
            )
        if not 0 <= self.validation_shift <= 1:
            raise UsageError(f"validation shift must be in [0, 1], got {self.validation_shift:g}")
        if self.seed < 0:
            raise UsageError(f"seed of a synthetic corpus must be 0 or more, got {self.seed}")

    def __str__(self) -> str:
        text = PREFIX + self.corpus
        if self.scale != DEFAULT_SCALES[self.corpus]:
            text += f"-x{_decimal(self.scale)}"
        if self.validation_shift != DEFAULT_VALIDATION_SHIFT:
            text += f"-v{_decimal(self.validation_shift)}"
        return text + (f"-s{self.seed}" if self.seed else "")


def is_synthetic(dataset: str) -> bool:
    """Return whether a dataset's name is one of those reserved for synthetic corpora."""
    return dataset.startswith(PREFIX)


def parse_name(
    dataset: str, *, scale: float | None = None, seed: int | None = None
) -> SyntheticName:
    """Return what a synthetic corpus's name says.

    Args:
        dataset: the name.
        scale: share of the real size, for a name that says none.
        seed: seed, for a name that says none.

    Raises:
        UsageError: if it is no such name, a value is out of range, or an argument contradicts it.
    """
    match = _NAME.fullmatch(dataset)
    if match is None:
        known = ", ".join(PREFIX + corpus for corpus in DEFAULT_SCALES)
        raise UsageError(
            f"unknown synthetic corpus {dataset!r}; known: {known}, each also with -x<scale> "
            f"(share of the real size, e.g. {PREFIX}mosei-x0.05), -v<validation shift>, -s<seed>"
        )
    corpus, named_scale, named_shift, named_seed = match.group("corpus", "scale", "shift", "seed")
    for what, named, given in (("scale", named_scale, scale), ("seed", named_seed, seed)):
        if named is not None and given is not None and float(named) != given:
            raise UsageError(
                f"dataset {dataset!r} says {what} {named}, but {what} {given} was asked for too; "
                "give one of them"
            )
    chosen = named_scale or (DEFAULT_SCALES[corpus] if scale is None else scale)
    return SyntheticName(
        corpus=corpus,
        scale=round(float(chosen), _DIGITS),
        validation_shift=round(float(named_shift or DEFAULT_VALIDATION_SHIFT), _DIGITS),
        seed=int(named_seed or seed or 0),
    )


def canonical_name(dataset: str, *, scale: float | None = None, seed: int | None = None) -> str:
    """Return the one name a synthetic corpus has in the store; arguments as ``parse_name``."""
    return str(parse_name(dataset, scale=scale, seed=seed))


def _decimal(value: float) -> str:
    return f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".")
