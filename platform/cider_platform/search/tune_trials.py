"""What is read from, and taken out of, the objects by which Tune knows trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cider_platform.runs import run_log

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


def trial_name(trial: Trial) -> str:
    """Return the name of a trial's folder: its number, and Tune's id for it."""
    # Tune's id, because a continued trial has its number again.
    return f"trial-{trial.config['number']}-{trial.trial_id}"


def death(trial: Trial) -> str:
    """Return what Ray knows of how a trial's worker ended last."""
    # Not get_error(), which reads where Tune copies the file to only later.
    return (
        run_log.last_failure(Path(trial.error_file)) if trial.error_file else "no reason is known"
    )


def forget(trial: Trial) -> None:
    """Let go of most of what Tune keeps of an ended trial until the search ends.

    That is its spec, its last report, and windows over every number it reported; nothing reads
    them, the study is the truth. What is left is a trial with its number and its run.
    """
    unresolved = getattr(trial, "_Trial__unresolved_config", {})
    for each in (trial.config, trial.evaluated_params, unresolved):
        each.pop("spec", None)
    # Not empty: Tune would ask the trial's worker for it.
    trial.run_metadata.last_result = {"done": True}
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
