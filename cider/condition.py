"""One way of losing data at evaluation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """One way of losing data at evaluation: protocol, rate in [0, 1] and SMM's kept set."""

    protocol: str
    rate: float
    kept: str = ""

    def __str__(self) -> str:
        return f"{self.protocol}/{self.kept}" if self.kept else f"{self.protocol}@{self.rate:g}"
