"""The last word of a search: its best configurations on seeds that it never searched on.

The best of many scores is best by luck in part, and the more so the more were compared. So the
three leading configurations are trained again on fresh seeds, all on the same ones, and ranked by
the mean of those alone. The trainings are a study of their own, so they survive what a search does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from cider_platform.search.objectives import directions
from cider_platform.search.racing import Configuration, Racing, configurations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider_platform.search.driver import Outcome, Plan
    from cider_platform.search.ledger import TrialRecord
    from cider_platform.search.space import Value

FINALISTS = 3
FIRST_FRESH_SEED = 100_000
"""Added to the study's seed; a search counts its seeds up from its own by at most 1,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One finalist on the fresh seeds."""

    trial: int
    """The search's trial that proposed it."""
    params: dict[str, Value]
    seeds: list[int]
    scores: list[float]
    """First objective by seed; of complete runs only."""
    runs: list[str]

    @property
    def mean(self) -> float:
        """Mean score, NaN without one."""
        return mean(self.scores) if self.scores else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the standard deviation has n - 1 below the line."""
        return {
            "trial": self.trial,
            "params": self.params,
            "seeds": self.seeds,
            "scores": self.scores,
            "runs": self.runs,
            "mean": self.mean if self.scores else None,
            "sd": stdev(self.scores) if len(self.scores) > 1 else None,
        }


def finalists(trials: Sequence[TrialRecord], *, minimise: bool) -> list[Configuration]:
    """Return the leading configurations: more seeds first, then the better mean, then the older."""
    sign = -1.0 if minimise else 1.0
    known = [each for each in configurations(trials) if each.scores]
    known.sort(key=lambda each: (-len(each.scores), -sign * each.mean, each.number))
    distinct: dict[str, Configuration] = {}
    for each in known:
        distinct.setdefault(json.dumps(each.params, sort_keys=True), each)
    return list(distinct.values())[:FINALISTS]


def final_plan(plan: Plan, leading: Sequence[Configuration], num_seeds: int) -> Plan:
    """Return the study that trains every finalist on every fresh seed.

    Its name has a hash of what it trains: a search that was extended has other finalists, and what
    they share with earlier ones is trained already.
    """
    first = plan.spec.seed + FIRST_FRESH_SEED
    starts = tuple(
        {"values": dict(each.params), "seed": seed}
        for seed in range(first, first + num_seeds)
        for each in leading
    )
    digest = hashlib.sha256(json.dumps(starts, sort_keys=True).encode()).hexdigest()
    return replace(
        plan,
        study=f"{plan.study}.final-{digest[:8]}",
        total=len(starts),
        sampler="random",
        pruner={"name": "none"},
        racing=Racing(),
        starts=starts,
    )


def standings(leading: Sequence[Configuration], outcome: Outcome) -> list[Standing]:
    """Return the finalists, the best first; one that lacks a seed comes after those with all."""
    found = []
    for place, each in enumerate(leading):
        trials = [
            trial
            for trial in outcome.trials
            if trial.number % len(leading) == place and trial.values is not None
        ]
        found.append(
            Standing(
                trial=each.number,
                params=dict(each.params),
                seeds=[trial.seed for trial in trials if trial.seed is not None],
                scores=[trial.values[0] for trial in trials if trial.values is not None],
                runs=[trial.run for trial in trials if trial.run is not None],
            )
        )
    sign = -1.0 if directions(outcome.objectives)[0] == "minimize" else 1.0
    return sorted(
        found, key=lambda each: (-len(each.scores), -sign * each.mean if each.scores else 0.0)
    )
