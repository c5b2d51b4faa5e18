"""Why a pruner stopped a trial: what the trial had and what it needed, noted when it happens.

Later trials move the bar, so this cannot be told afterwards from the study alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cider_platform.search.pruning import HyperbandPruner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import FrozenTrial


def stop_reason(
    pruner: Mapping[str, Any], trials: Sequence[FrozenTrial], trial: FrozenTrial
) -> dict[str, int | float]:
    """Return why a trial is stopped at the last epoch it has reported, as JSON values.

    Args:
        pruner: ``name`` and options, as the study's definition has them.
        trials: every trial of the study; higher values are better.
        trial: the one that is stopped, one of them.

    Returns:
        ``epoch``, ``value``, ``reached``: how many trials have come as far, this one included, and
        ``better``: how many of them did better. Of asha also ``rung``, from 0, ``kept``: how many
        go on, and ``needed``: the value that a newer trial must exceed. Of hyperband the same,
        within the trial's bracket.
    """
    step = trial.last_step
    if step is None:
        return {}
    value, rivals = trial.intermediate_values[step], trials
    if pruner.get("name") == "hyperband":
        rivals, pruner = _bracket(pruner, trials, trial)
    others = sorted(
        (
            other.intermediate_values[step]
            for other in rivals
            if step in other.intermediate_values and other.number != trial.number
        ),
        reverse=True,
    )
    reason: dict[str, int | float] = {
        "epoch": step,
        "value": value,
        "reached": len(others) + 1,
        "better": sum(other > value for other in others),
    }
    if pruner.get("name") == "asha":
        kept = max(1, (len(others) + 1) // pruner["reduction"])
        reason["rung"] = round(math.log(step / pruner["grace"], pruner["reduction"]))
        if kept <= len(others):
            reason |= {"kept": kept, "needed": others[kept - 1]}
    return reason


def _bracket(
    pruner: Mapping[str, Any], trials: Sequence[FrozenTrial], trial: FrozenTrial
) -> tuple[list[FrozenTrial], dict[str, Any]]:
    """Return the trials of a trial's bracket, and that bracket as the successive halving it is."""
    options = {name: value for name, value in pruner.items() if name != "name"}
    bracket = HyperbandPruner(**options).bracket
    mine = bracket(trial.number)
    asha = {
        "name": "asha",
        "grace": pruner["grace"] * pruner["reduction"] ** mine,
        "reduction": pruner["reduction"],
    }
    return [other for other in trials if bracket(other.number) == mine], asha
