"""Many finished runs evaluated at once: which are taken, under what, and that nothing is redone."""

from __future__ import annotations

import json

import pytest
from tiny_corpus import write_tiny_corpus
from typer.testing import CliRunner

from cider.config import with_field
from cider.errors import CiderError, NothingMatchedError
from cider.spec import RunSpec
from cider_platform.cli import app
from cider_platform.grids.work import work
from cider_platform.layout import RunFolder
from cider_platform.runs.batch_evaluation import evaluation_tasks, rows_of, select_runs
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import Runtime, resolve, train_run

SPEC = {
    "data": {"dataset": "tiny"},
    "model": {"name": "late_fusion", "width": 8},
    "text_encoder": {"width": 8, "layers": 1},
    "training": {"epochs": 1, "batch_size": 24},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runtime whose results hold two complete runs and a failed one, and the ids of the two."""
    folder = tmp_path_factory.mktemp("batch")
    write_tiny_corpus(folder / "store")
    runtime = Runtime(folder / "store", folder / "results", threads=1)
    ids = []
    for seed in (1, 2):
        spec = resolve(with_field(RunSpec.from_dict(SPEC), "seed", seed), runtime)
        list(train_run(spec, runtime))
        ids.append(spec.run_id)
    RunFolder.of(runtime.results, "0" * 16).write_status("FAILED", error="x")
    return runtime, ids


def test_all_is_every_complete_run_and_a_prefix_is_one(trained):
    runtime, ids = trained
    assert {each.run_id for each in select_runs(runtime.results, ["all"])} == set(ids)
    assert [each.run_id for each in select_runs(runtime.results, [ids[1][:6]])] == [ids[1]]
    assert len(select_runs(runtime.results, [ids[0], "all", ids[0]])) == 2


def test_run_that_is_not_complete_or_not_there_is_refused(trained, tmp_path):
    runtime, _ = trained
    with pytest.raises(CiderError, match="is FAILED; only complete runs are evaluated"):
        select_runs(runtime.results, ["0000"])
    with pytest.raises(NothingMatchedError, match="begins with 'xyz'"):
        select_runs(runtime.results, ["xyz"])
    with pytest.raises(NothingMatchedError, match=r"no run in .* is complete"):
        select_runs(tmp_path, ["all"])


def test_task_evaluates_its_run_to_the_rows_of_evaluate(trained):
    runtime, ids = trained
    (task,) = evaluation_tasks(select_runs(runtime.results, [ids[0]]), ["rmm", "none"], [0.0, 0.4])
    assert [str(each.protocol) for each in task.conditions] == ["rmm", "rmm", "none"]
    assert rows_of(runtime.results, task) is None
    assert work(task, train_run, runtime) == ""
    found = rows_of(runtime.results, task)
    folder = RunFolder.of(runtime.results, ids[0])
    conditions = [*conditions_of("rmm", [0.0, 0.4]), *conditions_of("none", [])]
    assert found == evaluate_run(folder, runtime, conditions)
    assert folder.state == "COMPLETE"


def test_own_protocol_is_taken_if_none_is_given(trained):
    runtime, _ = trained
    for task in evaluation_tasks(select_runs(runtime.results, ["all"]), [], [0.5]):
        assert [(each.protocol, each.rate) for each in task.conditions] == [("rmfm", 0.5)]


def command(runtime, *words):
    done = CliRunner().invoke(app, [
        "evaluate-runs", *words, "--store", str(runtime.store), "--results", str(runtime.results),
        "--device", "cpu", "--json",
    ])  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)["data"], done.stderr


def test_command_reads_what_was_evaluated_before_without_starting_anything(trained):
    runtime, ids = trained
    for run in ids:
        evaluate_run(RunFolder.of(runtime.results, run), runtime, conditions_of("rmfm", [0.3]))
    data, told = command(runtime, "all", "--rates", "0.3")
    assert "2 runs, 0 of them to evaluate" in told
    assert {each["run"] for each in data} == set(ids)
    assert all(each["error"] is None for each in data)
    assert [row["rate"] for each in data for row in each["evaluations"]] == [0.3, 0.3]


@pytest.mark.slow
def test_command_evaluates_on_ray_what_is_missing(trained):
    runtime, ids = trained
    data, told = command(runtime, "all", "--missing", "rmm", "--rates", "0.7")
    assert "2 runs, 2 of them to evaluate" in told
    assert told.count("is evaluated") == 2
    for each in data:
        folder = RunFolder.of(runtime.results, each["run"])
        assert each["evaluations"] == evaluate_run(folder, runtime, conditions_of("rmm", [0.7]))
    assert {each["run"] for each in data} == set(ids)
