"""Plans: what is left of a grid, on which cluster, and what it would cost."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest
from tiny_corpus import write_tiny_corpus
from typer.testing import CliRunner

from cider.errors import UsageError
from cider_platform.cli import app
from cider_platform.grids.estimates import History
from cider_platform.grids.grid import make_grid
from cider_platform.grids.job import read_job
from cider_platform.grids.plan import COLD_SECONDS, WARM_SECONDS, plan_grid, what_if
from cider_platform.grids.simulate import Cluster, Node
from cider_platform.grids.workload import SESSION_SECONDS, Slot, workload_of
from cider_platform.layout import RunFolder
from cider_platform.runs.evaluation import evaluate_run
from cider_platform.runs.trial import Runtime, train_run

BASE = {
    "dataset": "tiny",
    "model": "late_fusion",
    "model.width": 8,
    "text_encoder.width": 8,
    "text_encoder.layers": 1,
    "training.epochs": 2,
    "training.batch_size": 24,
}
ENDED = "2026-11-01T10:00:00+00:00"
ONE_CPU = Slot(device="cpu", cpus=1, gpus=0.0)
ONE_GPU = Slot(device="cuda", cpus=4, gpus=0.5)


@pytest.fixture
def store(tmp_path):
    write_tiny_corpus(tmp_path / "store")
    return tmp_path / "store"


def grid_of(store, **blocks):
    document = {"base": BASE, "axes": {"seed": "0:3"}, **blocks}
    return make_grid(read_job("tiny", document), store)


def write_past(results, spec, run_id, *, epochs=2, seconds=5.0, device="cpu", conditions=()):
    """Write the files of a complete run that took a while."""
    folder = RunFolder.of(results, run_id)
    folder.evaluation.mkdir(parents=True)
    folder.spec.write_text(json.dumps(spec.to_dict()))
    where = {"device": device, "gpu": None, "cpu": "Xeon", "threads": 1}
    folder.fingerprint.write_text(json.dumps({"environment": where}))
    folder.result.write_text(json.dumps({"epochs": epochs, "seconds": epochs * seconds}))
    for condition in conditions:
        path = folder.evaluation_file(condition)
        path.write_text("{}")
        ended = datetime.fromisoformat(ENDED).timestamp()
        os.utime(path, (ended + 6, ended + 6))
    folder.write_status("COMPLETE", ended=ENDED)


def planned(grid, results, cluster, slot=ONE_CPU, **options):
    return plan_grid(grid, results, cluster, slot, History.read(results), **options)


def test_shape_without_a_past_run_is_unknown_and_costs_no_number(store, tmp_path):
    found = planned(grid_of(store), tmp_path, Cluster(nodes=(Node(cpus=2),)))
    assert (found.cells, found.runs, found.done, found.to_do) == (1, 3, 0, 3)
    assert [cell.name for cell in found.unknown] == ["the only cell"]
    assert found.forecast is None
    assert found.to_dict()["unknown"] == ["the only cell"]
    assert json.loads(json.dumps(found.to_dict()))["run_p50_seconds"] is None


def test_wall_time_is_that_of_sessions_workers_and_rounds(store, tmp_path):
    grid = grid_of(store)
    write_past(tmp_path, grid.cells[0].specs[0], "past", epochs=2, seconds=5.0)
    # Not evaluated: at most an epoch per condition, and the grid has two.
    one = planned(grid, tmp_path, Cluster(nodes=(Node(cpus=8),), slots=1))
    run = 2 * 5.0 + 2 * 5.0
    assert one.run_p50_seconds == one.run_p90_seconds == run
    expected = SESSION_SECONDS + COLD_SECONDS + 2 * WARM_SECONDS + 3 * run
    assert one.forecast.wall_p50_seconds == pytest.approx(expected)
    three = planned(grid, tmp_path, Cluster(nodes=(Node(cpus=8),), slots=3))
    assert three.forecast.wall_p50_seconds == pytest.approx(SESSION_SECONDS + COLD_SECONDS + run)
    assert one.bases == {"1 past run of this shape on Xeon": 3}


def test_done_runs_are_left_out_and_those_only_to_be_evaluated_are_short(store, tmp_path):
    grid = grid_of(store)
    done, trained, _ = grid.cells[0].specs
    names = ["test-rmfm-0", "test-rmfm-0.5"]
    write_past(tmp_path, done, done.run_id, conditions=names)
    write_past(tmp_path, trained, trained.run_id, conditions=names[:1])
    load = workload_of(grid, tmp_path, ONE_CPU, History.read(tmp_path))
    # Six seconds under two conditions, and under one.
    # Which past run comes first is up to its id.
    runs = [tuple(sorted(item.seconds)) for item in load.work if item.kind == "run"]
    assert runs == [(3.0, 6.0), (10 + (6 + 12) / 2,) * 2]
    found = planned(grid, tmp_path, Cluster(nodes=(Node(cpus=2),)))
    assert (found.runs, found.done, found.to_do) == (3, 1, 2)


def test_finished_grid_takes_nothing(store, tmp_path):
    grid = grid_of(store)
    for spec in grid.cells[0].specs:
        write_past(tmp_path, spec, spec.run_id, conditions=["test-rmfm-0", "test-rmfm-0.5"])
    found = planned(grid, tmp_path, Cluster(nodes=(Node(cpus=2, gpus=1),)), price=3.0)
    assert found.to_do == 0
    assert found.forecast.wall_p90_seconds == 0
    assert found.cost_p90_usd == 0


def test_failed_runs_count_only_if_they_are_taken_up(store, tmp_path):
    grid = grid_of(store)
    write_past(tmp_path, grid.cells[0].specs[0], "past")
    RunFolder.of(tmp_path, grid.cells[0].run_ids[0]).write_status("FAILED", error="x")
    cluster = Cluster(nodes=(Node(cpus=2),))
    assert (planned(grid, tmp_path, cluster).to_do, planned(grid, tmp_path, cluster).failed) == (
        2,
        1,
    )
    retried = planned(grid, tmp_path, cluster, retry_failed=True)
    assert (retried.to_do, retried.failed) == (3, 0)


def test_searches_come_one_after_the_other_and_then_the_final_runs(store, tmp_path):
    search = {"trials": 4, "space": ["loss.joint=float:0:1"], "final_seeds": "0:2"}
    grid = grid_of(store, axes={"missing": ["rmfm", "rmm"]}, search=search)
    write_past(tmp_path, grid.cells[0].spec, "past")
    load = workload_of(grid, tmp_path, ONE_CPU, History.read(tmp_path))
    kinds = [item.kind for item in load.work]
    assert kinds == ["stage", *["trial"] * 4, "stage", *["trial"] * 4, "stage", *["run"] * 4]
    second = load.work[5]
    assert second.after == tuple(item.id for item in load.work[1:5])
    assert (load.searches, load.trials, load.later, load.runs) == (2, 8, 4, 0)
    found = planned(grid, tmp_path, Cluster(nodes=(Node(cpus=4),)))
    trial, run = 10.0, 20.0
    expected = 3 * (SESSION_SECONDS + COLD_SECONDS) + 2 * trial + run
    assert found.forecast.wall_p50_seconds == pytest.approx(expected)
    assert (found.runs, found.to_do) == (4, 4)


def test_gpu_plan_counts_gpu_hours_and_costs_the_whole_cluster(store, tmp_path):
    grid = grid_of(store)
    write_past(tmp_path, grid.cells[0].specs[0], "past", seconds=900.0, device="cuda")
    cluster = Cluster(nodes=(Node(cpus=8, gpus=2),))
    found = planned(grid, tmp_path, cluster, ONE_GPU, price=2.0)
    # At most two at a time, for want of CPUs: two rounds of an hour, half a GPU each.
    assert found.forecast.gpu_hours_p50 == pytest.approx(1.5, rel=0.01)
    assert found.forecast.wall_p50_seconds == pytest.approx(7200, rel=0.01)
    assert found.cost_p50_usd == pytest.approx(2.0 * 2 * 2, rel=0.01)
    assert planned(grid, tmp_path, cluster).unknown, "times of a GPU say nothing of a CPU"


@pytest.mark.parametrize(("price", "told"), [(2.0, "with 0 GPUs"), (-1.0, "got -1")])
def test_price_without_gpus_or_below_zero_is_refused(store, tmp_path, price, told):
    with pytest.raises(UsageError, match=told):
        planned(grid_of(store), tmp_path, Cluster(nodes=(Node(cpus=2),)), price=price)


def test_what_if_describes_equal_nodes():
    assert what_if("nodes=2,gpus=4,cpus=32", ONE_GPU) == (Node(cpus=32, gpus=4),) * 2
    assert what_if("gpus=4", ONE_GPU) == (Node(cpus=8 * 4, gpus=4),)
    assert what_if("cpus=3", ONE_CPU) == (Node(cpus=3),)


@pytest.mark.parametrize(
    "text", ["", "nodes", "nodes=x", "nodes=-1", "nodes=2;gpus=1", "disks=3", "nodes=1e9",
             "nodes=99999999"],
)  # fmt: skip
def test_what_if_of_another_form_is_refused(text):
    with pytest.raises(UsageError, match="--what-if must be nodes=N,gpus=N,cpus=N"):
        what_if(text, ONE_CPU)


@pytest.mark.parametrize("text", ["nodes=0,cpus=2", "nodes=2", "gpus=2"])
def test_what_if_without_a_cpu_is_refused(text):
    with pytest.raises(UsageError, match="without a CPU to run on"):
        what_if(text, ONE_CPU)


def test_run_that_fits_on_no_node_is_refused(store, tmp_path):
    grid = grid_of(store)
    write_past(tmp_path, grid.cells[0].specs[0], "past", device="cuda")
    with pytest.raises(UsageError, match=r"needs 4 CPUs and 0\.5 GPUs on one node"):
        planned(grid, tmp_path, Cluster(nodes=(Node(cpus=2, gpus=1),)), ONE_GPU)


def command(*words, code=0):
    done = CliRunner().invoke(app, ["plan", *map(str, words)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_command_calibrates_on_request_and_then_knows(store, tmp_path):
    path = tmp_path / "tiny.toml"
    base = "\n".join(f'"{name}" = {json.dumps(value)}' for name, value in BASE.items())
    path.write_text(f'[base]\n{base}\n[axes]\nseed = "0:3"\n')
    where = (path, "--store", store, "--results", tmp_path / "results", "--device", "cpu")
    done = command(*where)
    assert "unknown: no past run of this shape; run with --calibrate" in done.stderr
    assert not (tmp_path / "results").exists()
    data = json.loads(command(*where, "--calibrate", "--slots", 1, "--json").stdout)["data"]
    assert data["unknown"] == []
    assert data["forecast"]["wall_p90_seconds"] > data["run_p90_seconds"] * 3
    assert data["cluster"]["slots"] == 1
    again = command(*where, "--what-if", "nodes=2,cpus=8")
    assert "2 nodes, 16 CPUs, 0 GPUs" in again.stdout
    assert "3 durations from calibrated on" in again.stderr


def test_real_runs_of_a_grid_are_planned_from(store, tmp_path):
    grid = grid_of(store)
    runtime = Runtime(store, tmp_path / "results", threads=1)
    first = grid.cells[0].specs[0]
    list(train_run(first, runtime))
    evaluate_run(RunFolder.of(runtime.results, first.run_id), runtime, grid.cells[0].conditions)
    found = planned(grid, runtime.results, Cluster(nodes=(Node(cpus=2),), slots=1))
    assert (found.done, found.to_do, found.unknown) == (1, 2, ())
    assert 0 < found.run_p50_seconds < 60
