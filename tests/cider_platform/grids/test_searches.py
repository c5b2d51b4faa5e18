"""Searches inside a grid: what a cell is while its study goes on, and the runs of its best."""

import json
from dataclasses import replace

import pytest
from optuna.storages import InMemoryStorage
from small_grid import Place

from cider_platform.execution.capacity import Slots
from cider_platform.grids.driver import How, drive_grid
from cider_platform.grids.grid import Grid
from cider_platform.grids.searches import search_plan, standing
from cider_platform.grids.states import cell_states
from cider_platform.grids.table import result_rows
from cider_platform.grids.tasks import tasks_of
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.runs.trial import resolve, train_run
from cider_platform.search.ledger import Ledger
from cider_platform.search.study import define, open_storage, read_study

JOB = """
[axes]
dataset = ["tiny"]
[search]
trials = {trials}
sampler = "random"
pruner = "none"
space = ["loss.joint=float:0:1:0.25"]
final_seeds = "0:2"
[evaluate]
rates = [0.0, 0.5]
"""
SLOTS = Slots(slots=1, cpus_per_trial=1, gpus_per_trial=0.0)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, epochs=1)


def search_up_to(results, cell, number):
    """Tell a study's first trials without training; the best has the smallest joint loss."""
    plan = search_plan(cell, SLOTS, 1.0)
    definition = define(plan.spec, plan.space, sampler=plan.sampler, pruner=plan.pruner,
                        objectives=plan.objectives)  # fmt: skip
    made = Ledger(InMemoryStorage(), cell.study, definition)
    while (proposal := made.ask(number)) is not None:
        made.note(proposal.number, run=f"{proposal.number:016x}", seed=1111)
        made.complete(proposal.number, 1 - proposal.values["loss.joint"])
    storage = open_storage(StudyFolder.of(results, cell.study))
    stored = Ledger(storage, cell.study, definition)
    stored._study.add_trials(made._study.get_trials()[len(stored._study.trials) :])


def test_cell_with_a_search_has_runs_once_its_study_has_its_total(place):
    grid = place.grid(JOB.format(trials=4))
    (cell,) = grid.cells
    assert [state.state for state in cell_states(grid, place.results)] == ["waiting"]
    search_up_to(place.results, cell, 2)
    (state,) = cell_states(grid, place.results)
    assert (state.state, state.trials, state.runs) == ("stopped", 2, ())
    assert tasks_of(grid, place.results, retry_failed=True) == []
    search_up_to(place.results, cell, 4)
    tasks = tasks_of(grid, place.results, retry_failed=False)
    specs = [json.loads(task.spec) for task in tasks]
    _, trials = read_study(place.results, cell.study)
    joint = min(trial.params["loss.joint"] for trial in trials)
    assert [spec["seed"] for spec in specs] == [0, 1]
    assert {spec["loss"]["joint"] for spec in specs} == {joint}
    assert {spec["data"]["content_sha256"] for spec in specs} == {
        cell.spec.data.content_sha256
    }  # fmt: skip
    (state,) = cell_states(grid, place.results)
    assert (state.state, [run.state for run in state.runs]) == ("waiting", ["waiting"] * 2)
    assert place.run_inline(grid) == {task.run: "" for task in tasks}
    assert [state.state for state in cell_states(grid, place.results)] == ["done"]
    assert {row.seeds for row in result_rows(grid, place.results)} == {2}


def test_longer_search_goes_on_with_the_shorter_ones_study_which_keeps_its_best(place):
    (short,), (long,) = (place.grid(JOB.format(trials=trials)).cells for trials in (2, 5))
    assert short.study == long.study
    search_up_to(place.results, short, 2)
    best = standing(place.results, short).specs
    assert standing(place.results, long).state == "stopped"
    search_up_to(place.results, long, 5)
    assert standing(place.results, short).specs == best, "later trials change no finished cell"
    assert standing(place.results, long).specs is not None


def test_search_without_a_scored_trial_fails_its_cell(place):
    grid = place.grid(JOB.format(trials=1))
    (cell,) = grid.cells
    plan = search_plan(cell, SLOTS, 1.0)
    definition = define(plan.spec, plan.space, sampler="random", pruner=plan.pruner,
                        objectives=plan.objectives)  # fmt: skip
    ledger = Ledger(open_storage(StudyFolder.of(place.results, cell.study)), cell.study, definition)
    ledger.fail(ledger.ask(1).number, "the loss is not finite")
    (state,) = cell_states(grid, place.results)
    assert state.state == "failed"
    assert "no trial of study" in state.error


class Told:
    """Listens to a grid."""

    def __init__(self):
        self.lines, self.changes = [], []

    def tell(self, line):
        self.lines.append(line)

    def search(self, cell, number, total):
        return self

    def begin(self, trials, total):
        self.lines.append(f"{len(trials)} of {total}")

    def change(self, change):
        self.changes.append(change.state)


@pytest.mark.slow
def test_grid_searches_then_trains_the_best_on_fresh_seeds_and_tests_them(place):
    grid = place.grid(JOB.format(trials=3))
    told, how = Told(), How(slots=SLOTS, progress_timeout=200.0)
    outcome = drive_grid(
        grid, place.runtime, how, train=train_run, resolve=resolve, listener=told
    )  # fmt: skip
    assert (outcome.ran, outcome.failed, outcome.signal_number) == (2, 0, None)
    assert told.changes.count("COMPLETE") == 3
    (state,) = cell_states(grid, place.results)
    assert (state.state, state.trials) == ("done", 3)
    for run in state.runs:
        assert RunFolder.of(place.results, run.run).is_complete
    again = drive_grid(
        grid, place.runtime, how, train=train_run, resolve=resolve, listener=told
    )  # fmt: skip
    assert again.ran == 0
    assert told.changes.count("COMPLETE") == 3


def test_study_of_a_cell_depends_on_what_is_searched_and_not_on_the_final_seeds(place):
    grid = place.grid(JOB.format(trials=2).replace('["tiny"]', '["tiny", "other"]'))
    assert len({cell.study for cell in grid.cells}) == 2
    other = replace(grid.cells[0], seeds=(5,))
    assert other.study == grid.cells[0].study
    assert Grid("demo", (other, grid.cells[1])).id != grid.id
