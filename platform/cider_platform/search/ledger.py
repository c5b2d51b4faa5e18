"""The study: the only truth about a search's trials, kept with Optuna's ask and tell.

Whatever else remembers trials (Ray Tune, the driver's memory) may be lost at any moment. A trial
that was running when its driver died is handed out again with the same parameters. The sampler's
randomness is a function of the study's seed and the trial's number, so with one slot an interrupted
study proposes what an uninterrupted one would.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.trial import TrialState

from cider.registry import lookup
from cider_platform.search.database import Database
from cider_platform.search.journal import Journal
from cider_platform.search.objectives import directions
from cider_platform.search.pruning import PRUNERS
from cider_platform.search.racing import Racing, best_configuration, next_repeat
from cider_platform.search.samplers import Draw, GivenValues, grid_size, make_sampler
from cider_platform.search.space import Axis, Space, Value, axis_from_dict
from cider_platform.search.stopping import stop_reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial to run."""

    number: int
    values: dict[str, Value]
    """Values of the searched fields."""
    seed: int
    """Seed of its training."""
    is_continued: bool
    """True if an earlier driver had begun it."""
    repeats: int | None = None
    """The trial whose configuration it repeats on another seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial as the study remembers it; ``state`` as Optuna names it."""

    number: int
    state: str
    value: float | None
    """Value of the first objective; of a pruned trial, its score at the epoch it was stopped."""
    values: tuple[float, ...] | None
    """Values of all objectives of a complete trial."""
    params: dict[str, Value]
    run: str | None
    epochs: int
    seed: int | None
    repeats: int | None
    """The trial whose configuration it repeats on another seed; None if it proposed its own."""
    seconds: float = field(compare=False)
    """Time it ran, summed over drivers that ended it or were asked to end."""
    gpu_seconds: float = field(compare=False, default=0.0)
    """The same time, times its share of GPUs."""
    error: str | None


class Ledger:
    """Ask and tell for one study; hold the study's lease while using it.

    Args:
        storage: Optuna storage of the study.
        name: the study's name in the storage.
        definition: user attributes that define the study (``study.define``), written when the
            study is new.
    """

    def __init__(self, storage: BaseStorage, name: str, definition: Mapping[str, Any]) -> None:
        sampler, pruner = dict(definition["sampler"]), dict(definition["pruner"])
        self._space: Space = tuple(axis_from_dict(axis) for axis in definition["space"])
        self._seed = int(sampler.pop("seed"))
        self._sampler_name = sampler.pop("name")
        self._sampler_options = sampler
        self._starts: Sequence[Mapping[str, Any]] = definition["starts"]
        self._racing = Racing(**definition["racing"])
        self._directions = directions(definition["objectives"])
        self._grid_size = grid_size(self._space) if self._sampler_name == "grid" else None
        new_pruner = lookup("pruner", pruner.pop("name"), PRUNERS)
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=self._directions,
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

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Store what is told while the context lasts in one write, where the storage can."""
        storage = self._study._storage
        if isinstance(storage, Journal | Database):
            return storage.together()
        return contextlib.nullcontext()

    def has_work(self, total: int) -> bool:
        """Return whether ``ask`` would hand out a trial."""
        interrupted = any(trial.number < total for trial in self._interrupted)
        number = self._count()
        return interrupted or (number < total and self._fate(number) is not None)

    def _count(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def ask(self, total: int) -> Proposal | None:
        """Return the next trial to run: first those a dead driver left, then new ones.

        Args:
            total: how many trials the study may have; None is returned when it has them, or when
                a grid has no further point.
        """
        with self.together():
            return self._ask(total)

    def _ask(self, total: int) -> Proposal | None:
        while self._interrupted:
            left = self._interrupted.popleft()
            if left.number < total:
                return self._continue(left)
        number = self._count()
        if number >= total or (fate := self._fate(number)) is None:
            return None
        self._study.sampler = fate.sampler
        trial = self._study.ask()
        assert trial.number == number, "another process writes to this study"
        return self._hand_out(trial, self._mark_and_draw(trial, fate), is_continued=False)

    def _continue(self, left: FrozenTrial) -> Proposal:
        drawn = dict(left.params)
        self._study.sampler = GivenValues({})
        trial = optuna.Trial(self._study, left._trial_id)
        if set(drawn) != {axis.path for axis in self._space}:
            # Its driver died before it had all parameters. Drawing the rest alone would draw other
            # values than one uninterrupted ask, so the whole ask is repeated on a copy of the study
            # and what the sampler noted there is noted here.
            copied = self._ask_on_copy(left)
            for name, value in copied.system_attrs.items():
                self._study._storage.set_trial_system_attr(left._trial_id, name, value)
            for name, value in copied.user_attrs.items():
                trial.set_user_attr(name, value)
            drawn = dict(copied.params)
            self._study.sampler = GivenValues(drawn)
            self._draw(trial)
        return self._hand_out(trial, drawn, is_continued=True)

    def _ask_on_copy(self, left: FrozenTrial) -> FrozenTrial:
        fate = self._fate(left.number, left.user_attrs)
        assert fate is not None, "a trial that was begun has something to draw"
        copy = optuna.create_study(directions=self._directions, sampler=fate.sampler)
        copy.add_trials(self._study.get_trials(deepcopy=True)[: left.number])
        trial = copy.ask()
        self._mark_and_draw(trial, fate)
        return copy.get_trials(deepcopy=False)[-1]

    def _mark_and_draw(self, trial: Trial, fate: _Fate) -> dict[str, Value]:
        # Before the parameters: a trial without a seed has none of them either.
        trial.set_user_attr("seed", fate.seed)
        if fate.repeats is not None:
            trial.set_user_attr("repeats", fate.repeats)
        return self._draw(trial)

    def _hand_out(self, trial: Trial, drawn: dict[str, Value], *, is_continued: bool) -> Proposal:
        self._live[trial.number] = trial
        return Proposal(
            number=trial.number,
            values={axis.path: axis.value(drawn[axis.path]) for axis in self._space},
            seed=trial.user_attrs["seed"],
            repeats=trial.user_attrs.get("repeats"),
            is_continued=is_continued,
        )

    def _draw(self, trial: Trial) -> dict[str, Value]:
        return {axis.path: _suggest(trial, axis) for axis in self._space}

    def _fate(self, number: int, marks: Mapping[str, Any] | None = None) -> _Fate | None:
        """Return what a trial is to be, from the trials before it; None if there is nothing left.

        Args:
            number: of the trial.
            marks: user attributes that it has already.
        """
        trials = self._study.get_trials(deepcopy=False)[:number]
        if number < len(self._starts):
            start = self._starts[number]
            sampler = GivenValues(start["values"], self._sampler(number, trials))
            return _Fate(sampler, start.get("seed", self._seed))
        if marks and "seed" in marks:
            repeats = marks.get("repeats")
            seed = marks["seed"]
        else:
            repeats, seed = self._repeat(trials)
        if repeats is not None:
            return _Fate(GivenValues(trials[repeats].params), seed, repeats)
        if self._grid_size is not None and self._drawn(trials) >= self._grid_size:
            return None
        return _Fate(self._sampler(number, trials), seed)

    def _repeat(self, trials: Sequence[FrozenTrial]) -> tuple[int | None, int]:
        """Return which trial's configuration the next trial repeats, if one, and its seed."""
        if self._racing.seeds < 2:
            return None, self._seed
        axes = {axis.path: axis for axis in self._space}
        found = next_repeat(
            [_record(trial, axes) for trial in trials],
            self._racing,
            minimise=self._directions[0] == "minimize",
        )
        if found is None:
            return None, self._seed
        return found.number, self._seed + len(found.trials)

    def _drawn(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many configurations the sampler itself has drawn among the first trials."""
        later = trials[len(self._starts) :]
        return sum("repeats" not in trial.user_attrs for trial in later)

    def _sampler(self, number: int, trials: Sequence[FrozenTrial]) -> BaseSampler:
        draw = Draw(
            space=self._space, study_seed=self._seed, number=number, index=self._drawn(trials)
        )
        return make_sampler(self._sampler_name, self._sampler_options, draw)

    def note(self, number: int, **facts: str | int | float) -> None:
        """Store facts about a running trial, e.g. ``run="0123..."``."""
        for name, value in facts.items():
            self._live[number].set_user_attr(name, value)

    def spend(self, number: int, seconds: float, gpu_seconds: float = 0.0) -> None:
        """Add to the time that a running trial has taken."""
        before = self._live[number].user_attrs
        self.note(number, seconds=round(before.get("seconds", 0.0) + seconds, 3))
        if gpu_seconds:
            total = before.get("gpu_seconds", 0.0) + gpu_seconds
            self.note(number, gpu_seconds=round(total, 3))

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Store a running trial's score after an epoch; return whether to stop the trial there.

        An epoch that is already stored (a continued trial reports its past again) stays as it is.
        Optuna stores no epochs where there are several objectives, and nothing is stopped; a repeat
        is not stopped either: a mean needs all its seeds.
        """
        trial = self._live[number]
        if len(self._directions) > 1:
            trial.set_user_attr("epochs", epoch)
            return False
        known = self._study.get_trials(deepcopy=False)[number].intermediate_values
        if epoch not in known:
            trial.report(value, epoch)
        is_past = any(later > epoch for later in known)
        if is_past or "repeats" in trial.user_attrs:
            return False
        return trial.should_prune()

    def complete(self, number: int, *values: float) -> None:
        """Tell a trial's final values, one per objective; all must be finite."""
        self._study.tell(self._live.pop(number), values)

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


@dataclass(frozen=True, slots=True)
class _Fate:
    """What a trial that begins is to be."""

    sampler: BaseSampler
    seed: int
    repeats: int | None = None


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
    values = tuple(trial.values) if trial.state == TrialState.COMPLETE else None
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        # Of a pruned trial Optuna has the score of its last epoch here.
        value=values[0] if values else _last_score(trial),
        values=values,
        params={path: axes[path].value(drawn) for path, drawn in trial.params.items()},
        run=attributes.get("run"),
        epochs=trial.last_step or attributes.get("epochs", 0),
        seed=attributes.get("seed"),
        repeats=attributes.get("repeats"),
        seconds=attributes.get("seconds", 0.0),
        gpu_seconds=attributes.get("gpu_seconds", 0.0),
        error=attributes.get("error"),
    )


def _last_score(trial: FrozenTrial) -> float | None:
    if trial.state != TrialState.PRUNED or trial.last_step is None:
        return None
    return trial.intermediate_values[trial.last_step]


def counts(trials: list[TrialRecord]) -> dict[str, int]:
    """Return how many trials are in each state; a state nothing is in is absent."""
    return dict(Counter(trial.state for trial in trials))


def best(trials: Sequence[TrialRecord], *, minimise: bool = False) -> TrialRecord | None:
    """Return the trial that proposed the best configuration (``racing.best_configuration``)."""
    found = best_configuration(trials, minimise=minimise)
    return None if found is None else found.trials[0]


def pareto(trials: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """Return the complete trials that no other beats in one objective without losing in another."""
    signs = [1.0 if each == "maximize" else -1.0 for each in directions(objectives)]
    points = [
        (trial, [sign * value for sign, value in zip(signs, trial.values, strict=True)])
        for trial in trials
        if trial.values is not None
    ]
    return [
        trial
        for trial, mine in points
        if not any(
            other != mine and all(theirs >= own for theirs, own in zip(other, mine, strict=True))
            for _, other in points
        )
    ]
