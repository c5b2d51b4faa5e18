"""The three modalities, a container with one value for each, and the seven fusion subsets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


class Modality(StrEnum):
    """A modality; the order of the members is the order of segments in every fused sequence."""

    TEXT = "text"
    AUDIO = "audio"
    VISION = "vision"

    @property
    def letter(self) -> str:
        """Return the paper's letter: L (language), A or V."""
        return {"text": "L", "audio": "A", "vision": "V"}[self.value]


@dataclass(frozen=True, slots=True)
class PerModality(Generic[T]):
    """One value per modality, in the order text, audio, vision."""

    text: T
    audio: T
    vision: T

    def __getitem__(self, modality: Modality) -> T:
        return {"text": self.text, "audio": self.audio, "vision": self.vision}[modality.value]

    def __iter__(self) -> Iterator[T]:
        yield self.text
        yield self.audio
        yield self.vision

    def map(self, function: Callable[[T], U]) -> PerModality[U]:
        """Apply ``function`` to each value."""
        return PerModality(function(self.text), function(self.audio), function(self.vision))

    def zip_map(self, other: PerModality[U], function: Callable[[T, U], V]) -> PerModality[V]:
        """Apply ``function`` to each pair of values of ``self`` and ``other``."""
        return PerModality(
            function(self.text, other.text),
            function(self.audio, other.audio),
            function(self.vision, other.vision),
        )


_L, _A, _V = Modality.TEXT, Modality.AUDIO, Modality.VISION

SUBSETS: tuple[tuple[Modality, ...], ...] = (
    (_L, _A, _V),
    (_L, _A),
    (_L, _V),
    (_A, _V),
    (_L,),
    (_A,),
    (_V,),
)
"""The seven modality subsets of Multimodal Composite Attention, in the published order (Eq. 8)."""

KEPT_SETS: tuple[str, ...] = ("L", "A", "V", "LA", "LV", "AV")
"""The kept sets of the specific-modality-missing protocol (SMM)."""


def modalities_of(letters: str) -> frozenset[Modality]:
    """Return the modalities named by a kept set.

    Args:
        letters: one of ``KEPT_SETS``, for example ``"LA"``.

    Raises:
        ValueError: if ``letters`` is not one of ``KEPT_SETS``.
    """
    if letters not in KEPT_SETS:
        raise ValueError(f"unknown kept set {letters!r}; known: {', '.join(KEPT_SETS)}")
    return frozenset(modality for modality in Modality if modality.letter in letters)
