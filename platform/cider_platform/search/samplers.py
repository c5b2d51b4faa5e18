"""What proposes configurations: Optuna's samplers by name, each a function of the study so far.

A sampler is made anew for every trial from the study's seed and the trial's number, and remembers
nothing between trials: whatever it knows it reads from the study. So an interrupted study proposes
what an uninterrupted one would, whichever sampler it uses.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState

from cider.errors import UsageError
from cider.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from cider_platform.search.space import Axis, Space, Value

SAMPLER_OPTIONS: dict[str, dict[str, Any]] = {
    # Optuna's defaults change between versions, so what is meant is written down, with the study.
    "tpe": {"multivariate": True, "constant_liar": True, "n_startup_trials": 10},
    "random": {},
    "grid": {},
    "qmc": {"qmc_type": "sobol", "scramble": True},
    "gp": {"n_startup_trials": 10, "deterministic_objective": False},
    "cmaes": {"n_startup_trials": 10},
    "nsga2": {"population_size": 24},
}
SINGLE_OBJECTIVE = ("cmaes",)
"""Samplers that cannot weigh several objectives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a sampler is asked for."""

    space: Space
    study_seed: int
    number: int
    """Number of the trial."""
    index: int
    """How many configurations the sampler has drawn before; starting points and repeats of a
    configuration on another seed are not drawn by it."""

    @property
    def seed(self) -> int:
        """A seed of this trial's own."""
        return int(np.random.SeedSequence([self.study_seed, self.number]).generate_state(1)[0])


def make_sampler(name: str, options: Mapping[str, Any], draw: Draw) -> BaseSampler:
    """Return the sampler that draws one trial.

    Args:
        name: a key of ``SAMPLER_OPTIONS``.
        options: as stored with the study.
        draw: which trial of which study.

    Raises:
        UsageError: for an unknown name.
    """
    return lookup("sampler", name, _MAKERS)(draw, dict(options))


def distribution(axis: Axis) -> BaseDistribution:
    """Return an axis as Optuna describes it."""
    if axis.kind == "choice":
        return CategoricalDistribution(axis.choices)
    if axis.kind == "int":
        step = 1 if axis.step is None else int(axis.step)
        return IntDistribution(int(axis.low), int(axis.high), step=step)
    return FloatDistribution(axis.low, axis.high, step=axis.step, log=axis.kind == "log")


def grid_values(axis: Axis) -> tuple[Value, ...]:
    """Return the values a grid visits on one axis, in order.

    Raises:
        UsageError: if the axis is continuous.
    """
    if axis.kind == "choice":
        return axis.choices
    if axis.kind == "int":
        return tuple(range(int(axis.low), int(axis.high) + 1, int(axis.step or 1)))
    if axis.step is None:
        raise UsageError(
            f"a grid needs a finite list of values, but {axis} is continuous; give it a step "
            f"({axis.path}=float:LOW:HIGH:STEP) or choices, or use another --sampler"
        )
    count = math.floor((axis.high - axis.low) / axis.step + 1e-9) + 1
    return tuple(round(axis.low + k * axis.step, 10) for k in range(count))


def grid_size(space: Space) -> int:
    """Return how many configurations a grid over the space has.

    Raises:
        UsageError: if an axis is continuous.
    """
    return math.prod(len(grid_values(axis)) for axis in space)


class _Grid(RandomSampler):
    """The k-th configuration of a grid in a random order of its own; the last axis varies fastest.

    Optuna's grid looks for a configuration that no trial has, which depends on what is running;
    this one goes by the count, so that 1 and 4 slots visit the same configurations.
    """

    def __init__(self, draw: Draw) -> None:
        super().__init__(seed=draw.seed)
        axes = [grid_values(axis) for axis in draw.space]
        size = math.prod(map(len, axes))
        place = _shuffled(draw.index % size, size, draw.study_seed)
        position = np.unravel_index(place, [len(values) for values in axes])
        self._point = {
            axis.path: values[int(k)]
            for axis, values, k in zip(draw.space, axes, position, strict=True)
        }

    def sample_independent(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Value:
        return self._point[param_name]


def _shuffled(index: int, size: int, seed: int) -> int:
    """Return the image of ``index`` under a permutation of ``range(size)`` that the seed gives.

    An affine map with a multiplier coprime to the size: no list of the size is made.
    """
    rng = np.random.default_rng([seed, size])
    offset = int(rng.integers(size))
    multiplier = int(rng.integers(1, max(size, 2)))
    while math.gcd(multiplier, size) != 1:
        multiplier += 1
    return (multiplier * index + offset) % size


class _Sobol(QMCSampler):
    """Optuna's quasi-random sequence, its place given by the count and not by a stored counter.

    Optuna counts draws in the study before the trial has its parameters; a driver killed between
    the two would skip a point.
    """

    def __init__(self, draw: Draw, options: Mapping[str, Any]) -> None:
        with warnings.catch_warnings():
            # Optuna calls the class experimental at every use; what we use of it is tested.
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(
                seed=draw.study_seed,
                independent_sampler=RandomSampler(seed=draw.seed),
                warn_independent_sampling=False,
                **options,
            )
        self._draw = draw

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        return {axis.path: distribution(axis) for axis in self._draw.space}

    def _find_sample_id(
        self,
        study: Study,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> int:
        return self._draw.index


class _Tpe(TPESampler):
    """Optuna's TPE, which need not find out by all trials which fields are searched.

    Every trial of a study has all fields, within the same bounds (``study.check_same``); comparing
    each trial's again for every proposal took as long as proposing.
    """

    def __init__(self, draw: Draw, **options: Any) -> None:  # noqa: ANN401 - as Optuna has them
        super().__init__(seed=draw.seed, **options)
        self._draw = draw

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        trials = study._get_trials(deepcopy=False, use_cache=True)
        if not any(each.state in _OBSERVED for each in trials):
            return {}
        return {
            axis.path: distribution(axis)
            for axis in sorted(self._draw.space, key=lambda axis: axis.path)
        }


_OBSERVED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of trials that TPE learns from."""

_MAKERS: dict[str, Callable[[Draw, dict[str, Any]], BaseSampler]] = {
    "tpe": lambda draw, options: _Tpe(draw, **options),
    "random": lambda draw, options: RandomSampler(seed=draw.seed, **options),
    "grid": lambda draw, _: _Grid(draw),
    "qmc": _Sobol,
    "gp": lambda draw, options: GPSampler(seed=draw.seed, **options),
    "cmaes": lambda draw, options: CmaEsSampler(
        seed=draw.seed, warn_independent_sampling=False, **options
    ),
    "nsga2": lambda draw, options: NSGAIISampler(seed=draw.seed, **options),
}


class GivenValues(BaseSampler):
    """Gives some values, and leaves the others to another sampler, if there is one."""

    def __init__(self, given: Mapping[str, Value], rest: BaseSampler | None = None) -> None:
        self._given = given
        self._rest = rest

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what the other sampler draws together, without what is given."""
        if self._rest is None:
            return {}
        inferred = self._rest.infer_relative_search_space(study, trial)
        return {path: each for path, each in inferred.items() if path not in self._given}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what the other sampler draws together."""
        return {} if self._rest is None else self._rest.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - as Optuna has it
        """Return a given value, or the other sampler's."""
        if param_name in self._given:
            return self._given[param_name]
        assert self._rest is not None, f"nothing draws {param_name}"
        return self._rest.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on that a trial begins."""
        if self._rest is not None:
            self._rest.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: Any,  # noqa: ANN401 - optuna.trial.TrialState
        values: Sequence[float] | None,
    ) -> None:
        """Pass on that a trial ended."""
        if self._rest is not None:
            self._rest.after_trial(study, trial, state, values)
