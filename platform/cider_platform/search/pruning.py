"""What stops a trial between two epochs: pruners that hold no state of their own.

Tune's ASHA keeps its rungs in the driver's memory, so a killed driver forgets them. Optuna's
writes a rung before it answers, so a driver killed between the two goes on with a trial it had
decided to stop. This one reads the rungs from the study's intermediate values: asked again, it
answers the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.study import StudyDirection

from cider.config import check_range
from cider.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial


class AshaPruner(BasePruner):
    """Stop a trial at a rung unless it is among the best of all trials that have reached the rung.

    Rungs are at ``grace * reduction ** k`` epochs, k = 0, 1, ... (Li et al., ASHA, 2020). Of equal
    trials the older is ahead: a validation split of a few hundred utterances has so few different
    accuracies that otherwise ties, not merit, would decide how many go on.

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
        return self.prune_among(study.get_trials(deepcopy=False), study, trial)

    def prune_among(self, rivals: Sequence[FrozenTrial], study: Study, trial: FrozenTrial) -> bool:
        """Return whether to stop a trial that competes with ``rivals``, itself among them."""
        step = trial.last_step
        if step is None or not self.is_rung(step):
            return False
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        reached = [
            (sign * other.intermediate_values[step], -other.number)
            for other in rivals
            if step in other.intermediate_values
        ]
        mine = (sign * trial.intermediate_values[step], -trial.number)
        ahead = sum(each > mine for each in reached)
        return ahead >= max(1, len(reached) // self._reduction)


class HyperbandPruner(BasePruner):
    """Several successive halvings beside each other, the later ones with a longer grace.

    A fixed grace bets that early epochs tell; Hyperband (Li et al., 2018) hedges: trial number n
    belongs to bracket n mod the number of brackets, bracket b begins to compare at
    ``grace * reduction ** b`` epochs, and trials compete within their bracket only. The bracket
    follows from the number, so nothing has to be remembered.

    Args:
        grace: epochs before which bracket 0 stops nothing, at least 1.
        reduction: as for ``AshaPruner``.
        epochs: most epochs of a trial: brackets whose grace passes it do not exist.
    """

    def __init__(self, *, grace: int, reduction: int, epochs: int) -> None:
        self._brackets = [AshaPruner(grace=grace, reduction=reduction)]
        while (grace := grace * reduction) < epochs:
            self._brackets.append(AshaPruner(grace=grace, reduction=reduction))

    def bracket(self, number: int) -> int:
        """Return the bracket of a trial."""
        return number % len(self._brackets)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether to stop a trial at the last epoch it has reported."""
        mine = self.bracket(trial.number)
        rivals = [
            other
            for other in study.get_trials(deepcopy=False)
            if self.bracket(other.number) == mine
        ]
        return self._brackets[mine].prune_among(rivals, study, trial)


def median_pruner(*, grace: int, startup_trials: int) -> BasePruner:
    """Return the median rule: stop a trial whose best so far is below the median of finished ones.

    Args:
        grace: epochs before which nothing is stopped.
        startup_trials: finished trials before which nothing is stopped.
    """
    return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=grace)


PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "asha": AshaPruner,
    "hyperband": HyperbandPruner,
    "median": median_pruner,
    "none": NopPruner,
}


def pruner_definition(name: str, epochs: int, grace: int | None = None) -> dict[str, Any]:
    """Return a pruner as a study stores it, for trials of at most ``epochs`` epochs.

    Args:
        name: a key of ``PRUNERS``.
        epochs: most epochs of a trial.
        grace: epochs before which nothing is stopped; None is a twentieth of ``epochs``.

    Raises:
        UsageError: for an unknown name.
    """
    lookup("pruner", name, PRUNERS)
    first = grace or max(1, epochs // 20)
    options: dict[str, dict[str, Any]] = {
        "asha": {"grace": first, "reduction": 3},
        "hyperband": {"grace": first, "reduction": 3, "epochs": epochs},
        "median": {"grace": first, "startup_trials": 5},
        "none": {},
    }
    return {"name": name, **options[name]}
