"""The study: the only truth about a search's trials, kept with Optuna's ask and tell.

Whatever else remembers trials (Ray Tune, the driver's memory) may be lost at any moment. A trial
that was running when its driver died is handed out again with the same parameters. The sampler's
randomness is a function of the study's seed and the trial's number, so with one slot an interrupted
study proposes what an uninterrupted one would.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from cider.registry import lookup
from cider_platform.pruning import AshaPruner
from cider_platform.space import Axis, Space, Value, axis_from_dict
from cider_platform.stopping import stop_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {"tpe": TPESampler, "random": RandomSampler}
SAMPLER_OPTIONS: dict[str, dict[str, Any]] = {
    # Optuna's defaults change between versions, so what is meant is written down.
    "tpe": {"multivariate": True, "constant_liar": True, "n_startup_trials": 10},
    "random": {},
}
PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "asha": AshaPruner,
    "none": optuna.pruners.NopPruner,
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial to run: its number and the values of the searched fields."""

    number: int
    values: dict[str, Value]
    is_continued: bool
    """True if an earlier driver had begun it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial as the study remembers it; ``state`` as Optuna names it."""

    number: int
    state: str
    value: float | None
    params: dict[str, Value]
    run: str | None
    epochs: int
    seed: int | None
    error: str | None


class Ledger:
    """Ask and tell for one study; hold the study's lease while using it.

    Args:
        storage: Optuna storage of the study.
        name: the study's name in the storage.
        definition: user attributes that define the study (``study.define``), written when the
            study is new. Its entries ``space``, ``sampler`` and ``pruner`` are used here.
    """

    def __init__(self, storage: BaseStorage, name: str, definition: Mapping[str, Any]) -> None:
        sampler, pruner = dict(definition["sampler"]), dict(definition["pruner"])
        self._space: Space = tuple(axis_from_dict(axis) for axis in definition["space"])
        self._seed = int(sampler.pop("seed"))
        self._new_sampler = lookup("sampler", sampler.pop("name"), SAMPLERS)
        self._sampler_options = sampler
        new_pruner = lookup("pruner", pruner.pop("name"), PRUNERS)
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            pruner=new_pruner(**pruner),
            load_if_exists=True,
        )
        for key, value in definition.items():
            if key not in self._study.user_attrs:
                self._study.set_user_attr(key, value)
        self._live: dict[int, Trial] = {}
        self._interrupted = deque(
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == TrialState.RUNNING
        )

    @property
    def definition(self) -> dict[str, Any]:
        """The user attributes stored with the study."""
        return self._study.user_attrs

    def has_work(self, total: int) -> bool:
        """Return whether ``ask`` would hand out a trial."""
        interrupted = any(trial.number < total for trial in self._interrupted)
        return interrupted or len(self._study.get_trials(deepcopy=False)) < total

    def ask(self, total: int) -> Proposal | None:
        """Return the next trial to run: first those a dead driver left, then new ones.

        Args:
            total: how many trials the study may have; None is returned when it has them.
        """
        while self._interrupted:
            left = self._interrupted.popleft()
            if left.number < total:
                return self._continue(left)
        number = len(self._study.get_trials(deepcopy=False))
        if number >= total:
            return None
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        assert trial.number == number, "another process writes to this study"
        return self._hand_out(trial, self._draw(trial), is_continued=False)

    def _continue(self, left: FrozenTrial) -> Proposal:
        drawn = dict(left.params)
        self._study.sampler = _NoSampler()
        trial = optuna.Trial(self._study, left._trial_id)
        if set(drawn) != {axis.path for axis in self._space}:
            # Its driver died between two parameters. Drawing the rest alone would draw other values
            # than one uninterrupted ask, so the whole ask is repeated on a copy of the study.
            drawn = self._ask_on_copy(left.number)
            self._study.sampler = _NoSampler(drawn)
            self._draw(trial)
        return self._hand_out(trial, drawn, is_continued=True)

    def _ask_on_copy(self, number: int) -> dict[str, Value]:
        copy = optuna.create_study(direction="maximize", sampler=self._sampler(number))
        copy.add_trials(self._study.get_trials(deepcopy=True)[:number])
        return self._draw(copy.ask())

    def _hand_out(self, trial: Trial, drawn: dict[str, Value], *, is_continued: bool) -> Proposal:
        self._live[trial.number] = trial
        values = {axis.path: axis.value(drawn[axis.path]) for axis in self._space}
        return Proposal(trial.number, values, is_continued)

    def _draw(self, trial: Trial) -> dict[str, Value]:
        return {axis.path: _suggest(trial, axis) for axis in self._space}

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return self._new_sampler(seed=seed, **self._sampler_options)

    def note(self, number: int, **facts: str | int | float) -> None:
        """Store facts about a running trial, e.g. ``run="0123..."``."""
        for name, value in facts.items():
            self._live[number].set_user_attr(name, value)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Store a running trial's value after an epoch; return whether to stop the trial there.

        An epoch that is already stored (a continued trial reports its past again) stays as it is.
        """
        trial = self._live[number]
        known = self._study.get_trials(deepcopy=False)[number].intermediate_values
        if epoch not in known:
            trial.report(value, epoch)
        is_past = any(later > epoch for later in known)
        return not is_past and trial.should_prune()

    def complete(self, number: int, value: float) -> None:
        """Tell a trial's final value, which must be finite."""
        self._study.tell(self._live.pop(number), value)

    def prune(self, number: int) -> None:
        """Tell that a trial was stopped at the last epoch it reported; note why."""
        trial, trials = self._live.pop(number), self._study.get_trials(deepcopy=False)
        reason = stop_reason(self.definition["pruner"], trials, trials[number])
        trial.set_user_attr("pruned", reason)
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, number: int, error: str) -> None:
        """Tell that a trial failed, and why."""
        trial = self._live.pop(number)
        trial.set_user_attr("error", error)
        self._study.tell(trial, state=TrialState.FAIL)

    @property
    def live(self) -> list[int]:
        """Numbers of the trials handed out and not yet told."""
        return sorted(self._live)

    def trials(self) -> list[TrialRecord]:
        """Return every trial, by number."""
        return records(self._study, self._space)


class _NoSampler(BaseSampler):
    """Draws nothing: gives the values it is made with."""

    def __init__(self, drawn: Mapping[str, Value] | None = None) -> None:
        self._drawn = drawn or {}

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Value:
        return self._drawn[param_name]


def _suggest(trial: Trial, axis: Axis) -> Value:
    if axis.kind == "choice":
        return cast("Value", trial.suggest_categorical(axis.path, axis.choices))
    if axis.kind == "int":
        step = 1 if axis.step is None else int(axis.step)
        return trial.suggest_int(axis.path, int(axis.low), int(axis.high), step=step)
    is_log = axis.kind == "log"
    return trial.suggest_float(axis.path, axis.low, axis.high, step=axis.step, log=is_log)


def records(study: optuna.Study, space: Space) -> list[TrialRecord]:
    """Return every trial of a study, by number, with values as the runs' specs have them."""
    axes = {axis.path: axis for axis in space}
    return [_record(trial, axes) for trial in study.get_trials(deepcopy=False)]


def _record(trial: FrozenTrial, axes: Mapping[str, Axis]) -> TrialRecord:
    attributes = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        value=trial.value if trial.state != TrialState.RUNNING else None,
        params={path: axes[path].value(drawn) for path, drawn in trial.params.items()},
        run=attributes.get("run"),
        epochs=trial.last_step or 0,
        seed=attributes.get("seed"),
        error=attributes.get("error"),
    )


def counts(trials: list[TrialRecord]) -> dict[str, int]:
    """Return how many trials are in each state; a state nothing is in is absent."""
    return dict(Counter(trial.state for trial in trials))


def best(trials: list[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial with the highest value, the first of equals; None without one."""
    complete = [trial for trial in trials if trial.state == "COMPLETE" and trial.value is not None]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
