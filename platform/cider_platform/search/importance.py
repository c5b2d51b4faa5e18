"""Which searched fields decide how good a trial is, by an evaluator that Optuna has itself.

PED-ANOVA (Watanabe et al., IJCAI 2023) compares how the values of the best trials are spread with
how those of all trials are: a field whose best values lie close together is important for being
among the best. Optuna's fANOVA would need scikit-learn, which is no dependency of this program.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import TrialState

from cider.errors import NothingMatchedError

if TYPE_CHECKING:
    import optuna

EVALUATOR = "PED-ANOVA"
TARGET_QUANTILE = 0.1
"""Share of the trials that count as best, as published."""
FEWEST_BEST = 5
"""The evaluator's documentation asks for at least so many best trials."""
FEWEST_TRIALS = 2 * FEWEST_BEST
"""With fewer, the best could not be told from the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much each searched field decides whether a trial is among the best."""

    evaluator: str
    trials: int
    """Complete trials that were compared."""
    best: int
    """How many of them count as the best."""
    fields: dict[str, float]
    """Path to share, in falling order; the shares sum to 1."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def importance(study: optuna.Study, *, objective: int = 0) -> Importance:
    """Return the importance of a study's fields.

    Args:
        study: its complete trials are read; pruned and failed ones have no final value.
        objective: which of the study's objectives, from 0.

    Raises:
        NothingMatchedError: with too few complete trials, or if all are equally good.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST_TRIALS:
        raise NothingMatchedError(
            f"importance needs at least {FEWEST_TRIALS} complete trials, study "
            f"{study.study_name} has {len(complete)}; continue it with a larger --trials"
        )
    sign = -1.0 if study.directions[objective] == StudyDirection.MAXIMIZE else 1.0
    losses = sorted(sign * trial.values[objective] for trial in complete)
    wanted = max(math.ceil(TARGET_QUANTILE * len(losses)), FEWEST_BEST)
    best = sum(loss <= losses[wanted - 1] for loss in losses)
    if best == len(losses):
        raise NothingMatchedError(
            f"of the {len(losses)} complete trials of study {study.study_name} too many are as "
            "good as each other: the best cannot be told from the rest, nor what made them so"
        )
    with warnings.catch_warnings():
        # It always reminds that a given target is taken for a loss, which this one is.
        warnings.simplefilter("ignore")
        shares = get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=(wanted - 0.5) / len(losses)),
            target=lambda trial: sign * trial.values[objective],
        )
    fields = dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
    return Importance(evaluator=EVALUATOR, trials=len(losses), best=best, fields=fields)
