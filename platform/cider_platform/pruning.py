"""Asynchronous successive halving as an Optuna pruner that holds no state of its own.

Tune's ASHA keeps its rungs in the driver's memory, so a killed driver forgets them. Optuna's
writes a rung before it answers, so a driver killed between the two goes on with a trial it had
decided to stop. This one reads the rungs from the study's intermediate values: asked again, it
answers the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.pruners import BasePruner
from optuna.study import StudyDirection

from cider.config import check_range

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class AshaPruner(BasePruner):
    """Stop a trial at a rung unless it is among the best of all trials that have reached the rung.

    Rungs are at ``grace * reduction ** k`` epochs, k = 0, 1, ... (Li et al., ASHA, 2020).

    Args:
        grace: epochs before which nothing is stopped, at least 1.
        reduction: of the trials at a rung, one in this many goes on; at least 2. As long as fewer
            have reached the rung, only the best does.
    """

    def __init__(self, *, grace: int, reduction: int) -> None:
        check_range("grace epochs", grace, 1, 1_000_000)
        check_range("reduction factor", reduction, 2, 1_000)
        self._grace = grace
        self._reduction = reduction

    def is_rung(self, step: int) -> bool:
        """Return whether trials are compared at this epoch."""
        rung = self._grace
        while rung < step:
            rung *= self._reduction
        return rung == step

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether to stop a trial at the last epoch it has reported."""
        step = trial.last_step
        if step is None or not self.is_rung(step):
            return False
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        reached = [
            sign * other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if step in other.intermediate_values
        ]
        better = sum(value > sign * trial.intermediate_values[step] for value in reached)
        return better >= max(1, len(reached) // self._reduction)
