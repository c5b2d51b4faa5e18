"""Which configuration of a study gets another seed before a new configuration is tried.

A trial is one training: of a new configuration on the study's first seed, or a repeat of a
configuration on its next seed. Who is repeated is a function of the finished trials alone, so a
study that was killed goes on as it would have gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from cider.config import check_range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cider_platform.search.ledger import TrialRecord
    from cider_platform.search.space import Value

Rule = Literal["halving", "wilcoxon"]
REDUCTION = 3
"""halving: of the configurations that have n seeds, one in this many gets seed n + 1."""
LEAST_PAIRS = 4
"""wilcoxon: with fewer seeds no difference reaches the level (2 ** -4 is 0.0625)."""
LEVEL = 0.1
"""wilcoxon: one-sided level at which a configuration is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Racing:
    """How many seeds the most promising configurations are searched on."""

    seeds: int = 1
    """Seeds per configuration at most; 1 never repeats."""
    rule: Rule = "halving"
    """``halving``: successive halving over seeds. ``wilcoxon``: every configuration goes on until a
    signed-rank test over common seeds finds it worse than the best one."""

    def __post_init__(self) -> None:
        check_range("seeds per configuration", self.seeds, 1, 1_000)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"seeds": self.seeds, "rule": self.rule}


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a study knows of one configuration; scores by seed, those of complete trials only."""

    params: Mapping[str, Value]
    trials: tuple[TrialRecord, ...]
    """All its trials, by number; the first is the one that proposed it."""

    @property
    def number(self) -> int:
        """Number of the trial that proposed it."""
        return self.trials[0].number

    @property
    def scores(self) -> list[float]:
        """First objective of its complete trials, by trial number, so by seed."""
        return [each.values[0] for each in self.trials if each.values is not None]

    @property
    def mean(self) -> float:
        """Mean score over its complete trials."""
        return mean(self.scores)

    @property
    def is_settled(self) -> bool:
        """True if it has trials and every one is complete."""
        return all(each.state == "COMPLETE" for each in self.trials)


def configurations(trials: Sequence[TrialRecord]) -> list[Configuration]:
    """Return the configurations of a study by the trial that proposed each.

    Equal configurations proposed twice are two: the second trial has the first one's run.
    """
    groups: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.number if trial.repeats is None else trial.repeats, []).append(
            trial
        )
    return [Configuration(group[0].params, tuple(group)) for group in groups.values()]


def best_configuration(
    trials: Sequence[TrialRecord], *, minimise: bool = False
) -> Configuration | None:
    """Return the best of the configurations with most seeds, the first of equals; None if none.

    Few seeds flatter: the best of many single scores is best by luck in part, so a mean over fewer
    seeds than others have does not compete with theirs.
    """
    known = [each for each in configurations(trials) if each.scores]
    if not known:
        return None
    most = max(len(each.scores) for each in known)
    sign = -1.0 if minimise else 1.0
    return max(
        (each for each in known if len(each.scores) == most),
        key=lambda each: (sign * each.mean, -each.number),
    )


def next_repeat(
    trials: Sequence[TrialRecord], racing: Racing, *, minimise: bool = False
) -> Configuration | None:
    """Return the configuration that gets its next seed now, or None for a new configuration."""
    if racing.seeds < 2:
        return None
    sign = -1.0 if minimise else 1.0
    known = [each for each in configurations(trials) if each.is_settled]
    passes = _passes_halving if racing.rule == "halving" else _passes_wilcoxon
    eligible = [
        each for each in known if len(each.trials) < racing.seeds and passes(each, known, sign)
    ]
    return max(eligible, key=lambda each: (sign * each.mean, -each.number), default=None)


def _passes_halving(one: Configuration, known: Sequence[Configuration], sign: float) -> bool:
    seeds = len(one.scores)
    reached = [
        (sign * mean(each.scores[:seeds]), -each.number)  # the older of equals is the better
        for each in known
        if len(each.scores) >= seeds
    ]
    better = sum(other > (sign * one.mean, -one.number) for other in reached)
    return better < len(reached) // REDUCTION


def _passes_wilcoxon(one: Configuration, known: Sequence[Configuration], sign: float) -> bool:
    best = max(known, key=lambda each: (len(each.scores), sign * each.mean))
    pairs = list(zip(one.scores, best.scores, strict=False))
    if best is one or len(pairs) < LEAST_PAIRS:
        return True
    differences = [sign * (mine - theirs) for mine, theirs in pairs]
    if not any(differences):
        return True
    from scipy.stats import wilcoxon  # noqa: PLC0415 - half a second, for this rule only

    return bool(wilcoxon(differences, alternative="less", zero_method="zsplit").pvalue >= LEVEL)
