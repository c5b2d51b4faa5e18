"""What a comparison lacks: trainings by configuration and seeds, and evaluations by command.

A grid can train what is listed here; then the comparison is made again.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING

from cider.models import names
from cider_platform.evidence.ours import RULES, Ours, Rule
from cider_platform.evidence.paper_runs import WantedRun, wanted_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider_platform.evidence.comparison import Comparison

DEFAULT_SEEDS = 8
"""With fewer than 6, no paired test of two models can reach 0.05."""
FIRST_SEED = 1111
"""The published seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Runs of one configuration that are missing."""

    wanted: WantedRun
    rule: Rule
    seeds: tuple[int, ...]
    like: str = ""
    """A run whose configuration is to be trained on these seeds; empty if there is none yet, so
    that a search or the defaults decide."""
    cells: tuple[str, ...]
    """Addresses of the published cells that need them."""

    @property
    def commands(self) -> list[str]:
        """One command per seed that trains such a run with the defaults of what is free."""
        return [
            shlex.join(["cider-platform", "train", *self.wanted.options(rule=self.rule, seed=seed)])
            for seed in self.seeds
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All that a comparison lacks."""

    trainings: tuple[Training, ...]
    evaluations: tuple[str, ...]
    """Commands that evaluate runs there are."""
    impossible: tuple[str, ...]
    """Published models that are not among the models here."""


def work_for(
    comparison: Comparison,
    *,
    rules: Sequence[Rule] = RULES,
    num_seeds: int = DEFAULT_SEEDS,
    first_seed: int = FIRST_SEED,
) -> Work:
    """Return what is missing until every cell has so many seeds under every rule.

    Args:
        comparison: with the published numbers (``compare_table``).
        rules: selection rules that are wanted.
        num_seeds: seeds per configuration; those that a configuration has are kept.
        first_seed: seeds count up from here.
    """
    models = names()
    needs: dict[str, Training] = {}
    for row in comparison.rows:
        wanted = wanted_run(row.cell, models)
        for rule in rules if wanted is not None else ():
            ours = row.by(rule).ours
            seeds = _further_seeds(ours, num_seeds, first_seed)
            if wanted is None or not seeds:
                continue
            need = Training(
                wanted=wanted, rule=rule, seeds=seeds, like=next(iter(ours.runs), ""), cells=()
            )
            known = needs.setdefault(repr(need), need)
            needs[repr(need)] = replace(known, cells=(*known.cells, row.cell.address))
    sides = [row.by(rule).ours for row in comparison.rows for rule in rules]
    lacking = [row.cell.model for row in comparison.rows if wanted_run(row.cell, models) is None]
    return Work(
        trainings=tuple(needs.values()),
        evaluations=tuple(dict.fromkeys(line for ours in sides for line in ours.evaluate)),
        impossible=tuple(dict.fromkeys(lacking)),
    )


def _further_seeds(ours: Ours, num_seeds: int, first_seed: int) -> tuple[int, ...]:
    """Return the seeds a configuration lacks; none where none can be chosen."""
    if ours.state in ("several configurations", "no such model", "not of runs"):
        return ()
    free = (seed for seed in count(first_seed) if seed not in ours.seeds)
    return tuple(islice(free, max(0, num_seeds - len(ours.seeds))))
