"""Objectives, budgets, pruners, starting points and space files of a search."""

import math
from itertools import pairwise

import optuna
import pytest
from tiny_corpus import write_tiny_corpus

from cider.errors import UsageError
from cider.models.cider.config import Config
from cider.spec import DataConfig, MissingConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.layout import RunFolder, read_json
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.evaluation import conditions_of, evaluate_run, objective_values
from cider_platform.runs.trial import train_run
from cider_platform.search import budget
from cider_platform.search.budget import Budget, Clock
from cider_platform.search.objectives import parse_objective, parse_objectives
from cider_platform.search.pruning import HyperbandPruner, pruner_definition
from cider_platform.search.space import TABLE_II, parse_axis, read_space
from cider_platform.search.space_file import read_space_file
from cider_platform.search.starts import read_starts, start

NAMES = ["valid/acc2", "valid/f1", "valid/acc2@0.3", "valid/auilc/acc2", "parameters"]


def test_objectives_of_a_real_run_are_what_its_validation_split_gives(tmp_path):
    runtime = Runtime(tmp_path / "store", tmp_path / "results", threads=1)
    write_tiny_corpus(runtime.store)
    spec = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=1, batch_size=12),
    )
    spec = resolve(spec, runtime)
    assert len(list(train_run(spec, runtime))) == 1
    folder = RunFolder.of(runtime.results, spec.run_id)
    objectives = parse_objectives(NAMES, spec)
    found = dict(zip(NAMES, objective_values(folder, runtime, objectives), strict=True))
    result = read_json(folder.result)
    assert found["valid/acc2"] == pytest.approx(result["score"], abs=1e-6)
    assert found["parameters"] == result["parameters"]
    rates = [round(0.1 * step, 1) for step in range(11)]
    rows = evaluate_run(folder, runtime, conditions_of("rmfm", rates))
    curve = [row["valid"]["acc2"] for row in rows]
    assert found["valid/acc2@0.3"] == pytest.approx(curve[3], abs=1e-6)
    trapezia = sum((a + b) / 2 * 0.1 for a, b in pairwise(curve))
    assert found["valid/auilc/acc2"] == pytest.approx(trapezia, abs=1e-6)
    assert objectives[0].is_score_of(spec)
    assert not objectives[2].is_score_of(spec)
    assert objectives[4].direction == "minimize"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acc2", "an objective is valid/METRIC"),
        ("test/acc2", "an objective is valid/METRIC"),
        ("valid/acc9", "has the metrics"),
        ("valid/acc2@1.5", "from 0 to 1, got '1.5'"),
        ("valid/acc2@x", "from 0 to 1, got 'x'"),
        ("valid/auilc/acc2@0.1", "an area is over all rates"),
    ],
)
def test_objective_that_is_none_is_refused(name, said):
    with pytest.raises(UsageError, match=said):
        parse_objective(name, RunSpec())


def test_objective_at_a_rate_needs_a_protocol_with_rates():
    spec = RunSpec(missing=MissingConfig(protocol="none"))
    with pytest.raises(UsageError, match="the protocol none has no missing rates"):
        parse_objective("valid/auilc/acc2", spec)
    with pytest.raises(UsageError, match="named twice"):
        parse_objectives(["parameters", "parameters"], spec)


def test_clock_counts_running_and_finished_trials_against_gpu_hours(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    clock = Clock(Budget(gpu_hours=1.0), spent_gpu_seconds=900.0)
    clock.begin(1, gpus=0.5)
    now[0] = 3600.0
    assert clock.used_up == ""  # half a GPU for 1.5 hours
    assert clock.end(1) == (3600.0, 1800.0)
    clock.begin(2, gpus=0.5)
    now[0] = 5400.0
    assert clock.used_up == "its 1 GPU-hours are used up"
    assert not clock.is_over


def test_clock_stops_running_trials_when_the_hours_are_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    clock = Clock(Budget(hours=0.5))
    now[0] = 1799.0
    assert (clock.is_over, clock.used_up) == (False, "")
    now[0] = 1800.0
    assert (clock.is_over, clock.used_up) == (True, "its 0.5 hours are over")


@pytest.mark.parametrize("hours", [0.0, -1.0, math.nan])
def test_budget_that_is_not_above_zero_is_refused(hours):
    with pytest.raises(UsageError, match="--hours must be above 0"):
        Budget(hours=hours)


def study_with(pruner, scores):
    """Return a study whose trials have reported one score each epoch, the first ones complete."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for curve in scores:
        trial = study.ask()
        for epoch, score in enumerate(curve, start=1):
            trial.report(score, epoch)
        study.tell(trial, curve[-1])
    return study


def test_hyperband_compares_within_brackets_and_later_in_later_ones():
    pruner = HyperbandPruner(grace=1, reduction=3, epochs=9)
    assert [pruner.bracket(number) for number in range(4)] == [0, 1, 0, 1]
    study = study_with(pruner, [[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]] * 3)
    stopped = []
    for number in (6, 7):
        trial = study.ask()
        assert trial.number == number
        for epoch in (1, 2, 3):
            trial.report(0.5, epoch)
            if trial.should_prune():
                stopped.append((number, epoch))
                break
    # Bracket 0 (rivals at 0.9) stops at its first rung; bracket 1 (rivals at 0.1) goes on.
    assert stopped == [(6, 1)]


def test_median_rule_stops_what_is_below_the_median_of_finished_trials_after_the_grace():
    definition = pruner_definition("median", epochs=100)
    assert definition == {"name": "median", "grace": 5, "startup_trials": 5}
    from cider_platform.search.pruning import median_pruner

    study = study_with(median_pruner(grace=2, startup_trials=5), [[0.5, 0.5, 0.5]] * 5)
    trial = study.ask()
    trial.report(0.4, 1)
    assert not trial.should_prune()
    trial.report(0.4, 2)
    assert trial.should_prune()


def test_starting_points_are_read_and_checked():
    assert read_starts(["model.layers=2,loss.joint=1", "model.heads=8"], TABLE_II) == (
        {"values": {"model.layers": 2, "loss.joint": 1.0}},
        {"values": {"model.heads": 8}},
    )
    for text, said in [
        ("model.layers", "must be path=value"),
        ("optimizer.lr=0.1", "names optimizer.lr, which is not searched"),
        ("model.layers=9", "model.layers=9, which is not in model.layers=int:1:4"),
        ("model.heads=3", "which is not in model.heads=choice:1,2,4,8"),
        ("loss.joint=0.25", "which is not in loss.joint"),
        ("loss.joint=much", "which is not in loss.joint"),
    ]:
        with pytest.raises(UsageError, match=said):
            read_starts([text], TABLE_II)


def test_space_file_has_axes_in_three_forms_and_starting_points(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        '[space]\n"model.layers" = "int:1:3"\n"model.heads" = [1, 2]\n'
        '[space.loss]\njoint = {kind = "float", low = 0.0, high = 1.0, step = 0.5}\n'
        '[[start]]\n"model.layers" = 2\nloss.joint = 0.5\n'
    )
    axes, starts = read_space_file(path)
    assert axes == [
        parse_axis("model.layers=int:1:3"),
        parse_axis("model.heads=choice:1,2"),
        parse_axis("loss.joint=float:0:1:0.5"),
    ]
    space = read_space([], RunSpec(), from_file=axes)
    assert space == tuple(axes)
    assert [start(each, space) for each in starts] == [
        {"values": {"model.layers": 2, "loss.joint": 0.5}}
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[space", "is not TOML"),
        ("[spaces]\nx = 1\n", "unknown table 'spaces'; known: space, start"),
        ("start = 3\n", "starting points are"),
        ('[space]\n"model.layers" = 3\n', "the axis model.layers is text"),
        ('[space]\n"model.layers" = {kind = "int", low = 1, top = 3}\n', "the axis model.layers"),
    ],
)
def test_space_file_that_is_wrong_is_refused(tmp_path, text, said):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_space_file(path)


def test_space_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_space_file(tmp_path / "none.toml")
