"""The leak meter: how much better a study looks to whoever chooses on the test split.

Optimism is the best test score that choosing on test finds, minus the test score of the trial that
validation chooses. It is taken apart: what choosing the trial on test adds, what choosing the epoch
adds, and what choosing tau adds. The meter reads test scores of frozen runs; nothing may be chosen
by it.

A study of the honest selection has no trace of other epochs, so its epochs add nothing that can be
seen. A study of the published selection recorded both choices after every epoch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.condition import Condition
from cider.errors import NothingMatchedError, UsageError
from cider.metrics import right_answers
from cider.significance import (
    ChanceOptimism,
    chance_optimism,
    observed_correlation,
    own_luck,
)
from cider.spec import RunSpec
from cider_platform.evidence.predictions import (
    StoredPredictions,
    is_evaluated,
    read_predictions,
)
from cider_platform.layout import RunFolder, read_json
from cider_platform.results import marks, read_epochs
from cider_platform.runs.conditions import evaluation_name
from cider_platform.search.objectives import Objective, parse_objective
from cider_platform.search.study import objective_names, read_study

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cider_platform.search.ledger import TrialRecord
    from cider_platform.search.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialScores:
    """One trial's scores, each in [0, 1]; every test score is at least the one above it."""

    trial: int
    run: str
    validation: float
    """What the honest choice goes by."""
    test: float
    """Epoch and tau chosen on validation."""
    test_epoch: float
    """Epoch chosen on test, tau on validation; of the honest selection the same as ``test``."""
    test_tau: float
    """Epoch (where it was seen) and tau chosen on test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    """What choosing on the test split adds, in the metric's own unit."""

    selected_on_validation: float
    """Test score of the trial that is best on validation."""
    best_on_test: float
    total: float
    by_trial: float
    by_epoch: float
    by_tau: float

    @property
    def tau_share(self) -> float | None:
        """Share of tau in the total; None if the total is 0."""
        return self.by_tau / self.total if self.total > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """What the meter found in a study."""

    study: str
    rule: str
    objective: str
    conditions: tuple[str, ...]
    complete: int
    """Distinct runs of complete trials."""
    scores: tuple[TrialScores, ...]
    """Of those whose test scores are known."""
    optimism: Optimism | None
    """None if the trial that validation chooses has no test score; at least this, if other trials
    have none."""
    chance: ChanceOptimism | None
    """Of the choice among trials alone; None without predictions of two trials."""
    missing: tuple[str, ...]
    """Commands that make the evaluations that are missing."""
    marks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        optimism = self.optimism
        return {
            **asdict(self),
            "evaluated": len(self.scores),
            "optimism": None
            if optimism is None
            else {**asdict(optimism), "tau_share": optimism.tau_share},
        }


def optimism_of(scores: Sequence[TrialScores]) -> Optimism:
    """Return the optimism over trials; one trial has that of its epoch and tau alone.

    Each part is a difference of two maxima over the same trials, so none is negative and they sum
    to the total: trial (best ``test`` minus the honest choice's), epoch, tau.

    Raises:
        ValueError: if there is no trial.
    """
    if not scores:
        raise ValueError("optimism is of at least one trial")
    honest = max(scores, key=lambda each: (each.validation, -each.trial)).test
    trial, epoch, tau = (
        max(getattr(each, name) for each in scores) for name in ("test", "test_epoch", "test_tau")
    )
    return Optimism(
        selected_on_validation=honest,
        best_on_test=tau,
        total=tau - honest,
        by_trial=trial - honest,
        by_epoch=epoch - trial,
        by_tau=tau - epoch,
    )


def measure_leak(results: Path, name: str, database: Storage | None = None) -> Leak:
    """Return what choosing on test would add, or did add, to a study.

    Args:
        results: results root.
        name: the study's name.
        database: where the study is kept, if not in the results folder; its runs are there.

    Raises:
        NothingMatchedError: if there is no such study, or it has no complete trial.
        UsageError: if its first objective is no score, or one that the published selection did
            not record.
    """
    definition, trials = read_study(results, name, database)
    complete = _distinct(trials)
    if not complete:
        raise NothingMatchedError(
            f"study {name} has no complete trial yet; cider-platform study trials {name} lists them"
        )
    spec = RunSpec.from_dict(definition["base"])
    objective = parse_objective(objective_names(definition)[0], spec)
    _check(name, spec, objective)
    study = _Study(results, spec, objective)
    published = spec.selection.rule == "published"
    found = [study.recorded(each) if published else study.evaluated(each) for each in complete]
    scores = [each for each in found if each is not None]
    lacking = [each for each in complete if not study.is_evaluated(each)]
    chosen = max(complete, key=lambda each: (_value(each), -each.number))
    is_known = published or study.is_evaluated(chosen)
    optimism = optimism_of(scores) if scores and is_known else None
    return Leak(
        study=name,
        rule=spec.selection.rule,
        objective=objective.name,
        conditions=tuple(map(str, study.places)),
        complete=len(complete),
        scores=tuple(scores),
        optimism=optimism,
        chance=None if optimism is None else study.chance(scores, optimism, len(complete)),
        missing=tuple(study.command(each) for each in lacking),
        marks=tuple(marks(definition["base"], study.result(complete[0]))),
    )


def _distinct(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return complete trials, one per run: equal proposals share a run and are one draw."""
    by_run = {each.run: each for each in reversed(trials) if each.values is not None and each.run}
    return sorted(by_run.values(), key=lambda each: each.number)


def _value(trial: TrialRecord) -> float:
    assert trial.values is not None
    return trial.values[0]


def _check(name: str, spec: RunSpec, objective: Objective) -> None:
    if not objective.metric:
        raise UsageError(
            f"study {name} is searched by {objective.name}, which reads no labels and cannot leak; "
            "the leak meter needs a study whose first objective is a metric"
        )
    if spec.selection.rule == "published" and not objective.is_score_of(spec):
        raise UsageError(
            f"study {name} selects on test and is searched by {objective.name}; only the score by "
            f"which its runs select their epoch, valid/{spec.selection_metric}, was recorded for "
            "both choices"
        )


class _Study:
    """Reads the test scores of a study's runs.

    Args:
        results: results root.
        spec: the study's base spec.
        objective: its first objective, a metric's.
    """

    def __init__(self, results: Path, spec: RunSpec, objective: Objective) -> None:
        self._results = results
        self._metric = objective.metric
        self._objective = objective
        missing = spec.missing
        rates = spec.selection.rates if objective.rates is None else objective.rates
        if missing.protocol in ("none", "smm"):
            rates = (0.0,)
        self.places = tuple(Condition(missing.protocol, rate, missing.kept) for rate in rates)
        self._space = spec.maci.counterfactual_space

    def folder(self, trial: TrialRecord) -> RunFolder:
        assert trial.run is not None
        return RunFolder.of(self._results, trial.run)

    def result(self, trial: TrialRecord) -> Mapping[str, Any]:
        path = self.folder(trial).result
        return read_json(path) if path.is_file() else {}

    def is_evaluated(self, trial: TrialRecord) -> bool:
        folder = self.folder(trial)
        return all(is_evaluated(folder, place) for place in self.places)

    def evaluated(self, trial: TrialRecord) -> TrialScores | None:
        """Return an honest trial's scores from its evaluations, or None without them."""
        if not self.is_evaluated(trial):
            return None
        folder = self.folder(trial)
        rows = [
            read_json(folder.evaluation_file(evaluation_name(each)))["test"] for each in self.places
        ]
        test = self._objective.value(rows, 0)
        best = self._objective.value(
            [{self._metric: each.best_on_test(self._metric)} for each in self._read(trial)], 0
        )
        if math.isnan(test):
            return None
        return TrialScores(
            trial=trial.number,
            run=folder.run_id,
            validation=_value(trial),
            test=test,
            test_epoch=test,
            test_tau=max(test, best),  # equal but for the rounding of a mean
        )

    def recorded(self, trial: TrialRecord) -> TrialScores | None:
        """Return the scores that a run of the published selection recorded after its epochs."""
        epochs = [each for each in read_epochs(self.folder(trial).epochs) if each.get("published")]
        if not epochs:
            return None
        honest = max(epochs, key=lambda each: float(each["published"]["valid_score"]))["published"]
        test_epoch = max(float(each["published"]["test_at_valid_tau"]) for each in epochs)
        return TrialScores(
            trial=trial.number,
            run=self.folder(trial).run_id,
            validation=float(honest["valid_score"]),
            test=float(honest["test_at_valid_tau"]),
            test_epoch=test_epoch,
            test_tau=max(test_epoch, *(float(each["score"]) for each in epochs)),
        )

    def chance(
        self, scores: Sequence[TrialScores], optimism: Optimism, complete: int
    ) -> ChanceOptimism | None:
        """Return what chance gives for the choice among as many trials as have scores."""
        if complete == 1:
            return chance_optimism(1, 0.0, 0.0, optimism.by_trial)
        right = [self._right(each.run) for each in scores if self._has_predictions(each.run)]
        if len(right) < 2:
            return None
        correlation = observed_correlation(
            np.array([each.validation for each in scores]), np.array([each.test for each in scores])
        )
        return chance_optimism(
            len(scores), own_luck(np.stack(right)), correlation, optimism.by_trial
        )

    def _has_predictions(self, run: str) -> bool:
        folder = RunFolder.of(self._results, run)
        return all(is_evaluated(folder, each) for each in self.places)

    def _right(self, run: str) -> np.ndarray:
        """Return how right a run has each utterance, weighted over conditions as the objective."""
        # An objective is linear in the conditions' metrics: a mean, or an area.
        weights = [
            self._objective.value([{self._metric: float(each == place)} for each in self.places], 0)
            for place in self.places
        ]
        rows = [
            right_answers(self._metric, each.scores(), each.labels_N) for each in self._of_run(run)
        ]
        right_N: np.ndarray = np.tensordot(weights, np.stack(rows).astype(float), 1)
        return right_N

    def _read(self, trial: TrialRecord) -> list[StoredPredictions]:
        assert trial.run is not None
        return self._of_run(trial.run)

    def _of_run(self, run: str) -> list[StoredPredictions]:
        folder = RunFolder.of(self._results, run)
        return [read_predictions(folder, place, self._space) for place in self.places]

    def command(self, trial: TrialRecord) -> str:
        """Return the command that evaluates a trial's run as the meter needs it."""
        place = self.places[0]
        words = ["cider-platform", "evaluate", str(trial.run), "--missing", place.protocol]
        if place.kept:
            words += ["--kept", place.kept]
        elif place.protocol != "none":
            words += ["--rates", ",".join(f"{each.rate:g}" for each in self.places)]
        return " ".join(words)
