"""Grids that are run: shared training, failed cells, what is missing, who may drive, leftovers."""

import json
import os

import pytest
from small_grid import BROKEN, Place
from typer.testing import CliRunner

from cider.errors import UsageError
from cider_platform.cli import app
from cider_platform.grids.grid import store_grid
from cider_platform.grids.leftovers import find_leftovers
from cider_platform.grids.states import cell_states, run_state
from cider_platform.grids.table import AUILC, result_rows
from cider_platform.grids.tasks import tasks_of
from cider_platform.layout import GridFolder, RunFolder, read_json, write_json_atomic
from cider_platform.lease import LeaseTakenError, hold
from cider_platform.results import read_epochs
from cider_platform.runs.conditions import evaluation_name

FAILING = f"""
[axes]
dataset = ["tiny"]
[[axes.variant]]
name = "fine"
[[axes.variant]]
name = "broken"
{BROKEN}
[evaluate]
rates = [0.0, 0.5]
"""
ONE_TO_ALL = """
[axes]
dataset = ["tiny"]
seed = [1111, 7]
[evaluate]
protocols = ["rmfm", "rmfm_per_modality", "rmm", "smm", "none"]
rates = [0.0, 0.5]
"""


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.stop()


def begins(folder):
    return folder.log.read_text().count(" begin ")


@pytest.fixture(scope="module")
def through_ray(tmp_path_factory):
    """The failing job by the command line: what its first run printed."""
    made = Place(tmp_path_factory.mktemp("grid"))
    job = made.write("failing", FAILING)
    yield made, made.command("run", job, "--json", code=100)
    made.stop()


def test_failed_run_fails_its_cell_alone_and_the_command_says_so(through_ray):
    place, data = through_ray
    fine, broken = data["cells"]
    assert (fine["state"], broken["state"]) == ("done", "failed")
    assert "not finite" in broken["runs"][0]["error"]
    assert data["ran"] == 1
    assert {row["cell"] for row in data["rows"]} == {fine["cell"]}
    assert {row["marks"][0] for row in data["rows"]} == {"synthetic"}
    messages = (place.root / "messages").read_text()
    assert "1 of 2 cells failed" in messages
    folder = GridFolder.of(place.results, data["grid"])
    assert "failed" in folder.log.read_text()
    assert not folder.lease.read_text().strip(), "the lease is free, and Ray's folder is gone"


def test_same_command_again_runs_nothing_and_prints_the_same_table(through_ray):
    place, before = through_ray
    run = RunFolder.of(place.results, before["cells"][0]["runs"][0]["run"])
    broken = RunFolder.of(place.results, before["cells"][1]["runs"][0]["run"])
    changed = run.status.stat().st_mtime_ns, begins(broken)
    data = place.command("run", place.root / "failing.toml", "--json", code=100)
    assert data["ran"] == 0
    assert data["rows"] == before["rows"]
    assert (run.status.stat().st_mtime_ns, begins(broken)) == changed
    tables = place.command("run", place.root / "failing.toml", code=100)
    assert "sealed test, mean +- SD over seeds [synthetic]" in tables
    assert "rmfm AUILC" in tables


def test_status_of_a_grid_is_filtered_and_finds_it_by_its_job(through_ray):
    place, data = through_ray
    found = place.command("status", "failing", "--json", "--state", "failed,stopped")
    assert found["grid"] == data["grid"]
    assert [cell["values"]["variant"] for cell in found["cells"]] == ["broken"]
    assert not found["driven"]
    shown = place.command("status", "failing", "--where", "variant=fine")
    assert "1 of 1" in shown
    place.command("status", "failing", "--where", "variant=none", code=3)
    place.command("status", "failing", "--where", "colour=red", code=2)
    place.command("status", "failing", "--state", "odd", code=2)
    place.command("status", "nothing", code=3)
    place.command("cancel", "failing", code=3)


def test_log_of_a_failed_run_has_its_traceback(through_ray):
    place, data = through_ray
    run = data["cells"][1]["runs"][0]["run"]
    assert "TrainingError" in place.command("logs", run[:8])
    assert len(place.command("logs", run, "--lines", "2").splitlines()) == 2


# In this process


def test_six_protocols_of_evaluation_train_once(place):
    grid = place.grid(ONE_TO_ALL)
    assert place.run_inline(grid) == dict.fromkeys(grid.cells[0].run_ids, "")
    for run in grid.cells[0].run_ids:
        folder = RunFolder.of(place.results, run)
        assert begins(folder) == 1
        assert len(read_epochs(folder.epochs)) == 2
        names = {evaluation_name(each) for each in grid.cells[0].conditions}
        assert {path.stem for path in folder.evaluation.glob("*.json")} == names
        assert len(names) == 3 * 2 + 6 + 1
    assert tasks_of(grid, place.results, retry_failed=True) == []


def test_grids_that_share_a_run_train_it_once_and_evaluate_what_each_asks(place):
    first = place.grid('[axes]\ndataset = ["tiny"]\n[evaluate]\nrates = [0.0]')
    second = place.grid(ONE_TO_ALL)
    place.run_inline(first)
    (run,) = first.cells[0].run_ids
    folder = RunFolder.of(place.results, run)
    weights = folder.best.stat().st_mtime_ns
    assert run in second.cells[0].run_ids
    done = place.run_inline(second)
    assert set(done) == set(second.cells[0].run_ids)
    assert folder.best.stat().st_mtime_ns == weights
    assert len(read_epochs(folder.epochs)) == 2
    assert {state.state for state in cell_states(second, place.results)} == {"done"}


def test_cells_of_one_grid_that_share_a_run_are_one_task_with_all_conditions(place):
    first = place.grid('[base]\ndataset = "tiny"\n[evaluate]\nrates = [0.0]').cells[0]
    second = place.grid('[base]\ndataset = "tiny"\n[evaluate]\nprotocols = ["none"]').cells[0]
    grid = type(place.grid('[base]\ndataset = "tiny"'))("both", (first, second))
    (task,) = tasks_of(grid, place.results, retry_failed=False)
    assert task.conditions == (*first.conditions, *second.conditions)


def test_failed_run_is_taken_up_only_when_asked(place):
    grid = place.grid(FAILING)
    errors = place.run_inline(grid)
    (failed,) = [run for run, error in errors.items() if error]
    assert tasks_of(grid, place.results, retry_failed=False) == []
    assert [task.run for task in tasks_of(grid, place.results, retry_failed=True)] == [failed]
    place.run_inline(grid, retry_failed=True)
    assert begins(RunFolder.of(place.results, failed)) == 2


def test_run_that_was_stopped_is_taken_up_and_goes_on_from_its_checkpoint(place):
    grid = place.grid('[base]\ndataset = "tiny"')

    class StopError(BaseException):
        """As if the process had been killed."""

    def stopping(spec, runtime):
        from cider_platform.runs.trial import train_run

        for result in train_run(spec, runtime):
            yield result
            raise StopError

    with pytest.raises(StopError):
        place.run_inline(grid, train=stopping)
    (run,) = grid.cells[0].run_ids
    folder = RunFolder.of(place.results, run)
    (state,) = cell_states(grid, place.results)
    assert state.state == "stopped"
    first = read_epochs(folder.epochs)
    assert len(first) == 1
    assert place.run_inline(grid) == {run: ""}
    assert read_epochs(folder.epochs)[0] == first[0]


def test_evaluation_that_fails_fails_the_cell_and_is_done_again_when_asked(place, monkeypatch):
    from cider_platform.grids import work as module

    def broken(folder, runtime, conditions):
        raise OSError(5, "Input/output error")

    grid = place.grid('[base]\ndataset = "tiny"')
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_run", broken)
        ((run, error),) = place.run_inline(grid).items()
    assert "Input/output error" in error
    (state,) = cell_states(grid, place.results)
    assert state.state == "failed"
    assert "its evaluation failed" in state.runs[0].error
    assert RunFolder.of(place.results, run).is_complete
    assert place.run_inline(grid) == {}
    assert place.run_inline(grid, retry_failed=True) == {run: ""}
    assert cell_states(grid, place.results)[0].state == "done"


def test_table_has_mean_and_sd_over_seeds_and_says_which_seeds_are_missing(place):
    grid = place.grid(ONE_TO_ALL.replace('["rmfm", ', '["none", "rmfm", '))
    place.run_inline(grid)
    rows = result_rows(grid, place.results)
    by_condition = {(row.protocol, row.rate, row.kept): row for row in rows}
    assert len(rows) == 1 + 3 * (2 + 1) + 6
    scores = [
        read_json(RunFolder.of(place.results, run).evaluation_file("test-rmfm-0.5"))["test"]["acc2"]
        for run in grid.cells[0].run_ids
    ]
    row = by_condition["rmfm", 0.5, ""]
    assert row.mean["acc2"] == pytest.approx(sum(scores) / 2)
    assert row.sd["acc2"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    ends = [by_condition["rmfm", rate, ""].mean["acc2"] for rate in (0.0, 0.5)]
    assert by_condition["rmfm", AUILC, ""].mean["acc2"] == pytest.approx(sum(ends) / 4)
    assert ("none", AUILC, "") not in by_condition
    assert (row.seeds, row.asked, list(row.marks)) == (2, 2, ["synthetic"])
    folder = RunFolder.of(place.results, grid.cells[0].run_ids[0])
    folder.write_status("FAILED", error="broken afterwards")
    row = {(each.protocol, each.rate): each for each in result_rows(grid, place.results)}[
        "rmfm", 0.5
    ]
    assert (row.seeds, row.asked, row.sd["acc2"]) == (1, 2, None)


def test_published_selection_is_marked_in_the_table(place):
    grid = place.grid('[base]\ndataset = "tiny"\nselection = "published"')
    place.run_inline(grid)
    assert result_rows(grid, place.results)[0].marks == ["synthetic", "published selection"]


def test_second_driver_of_a_grid_is_refused(place):
    job = place.write("demo", '[axes]\ndataset = ["tiny"]')
    grid = place.grid('[axes]\ndataset = ["tiny"]')
    roots = ["--store", str(place.store), "--results", str(place.results)]
    with hold(GridFolder.of(place.results, grid.id).lease, "grid"):
        result = CliRunner().invoke(app, ["run", str(job), *roots])
    assert isinstance(result.exception, LeaseTakenError)
    assert f"grid {grid.id} is in the hands of process {os.getpid()}" in str(result.exception)
    assert not (place.results / "runs").exists()


def test_dry_run_says_what_would_be_run_and_makes_nothing(place):
    job = place.write("demo", '[axes]\ndataset = ["tiny", "other"]\nseed = "0:3"')
    roots = ["--store", str(place.store), "--results", str(place.results)]
    result = CliRunner().invoke(app, ["run", str(job), "--dry-run", *roots])
    assert result.exit_code == 0
    assert "2 cells, 6 runs; 6 runs to do now" in result.output
    assert not place.results.exists()


def test_missing_corpus_is_a_sentence_and_nothing_is_run(place):
    job = place.write("demo", '[axes]\ndataset = ["tiny", "nowhere"]')
    roots = ["--store", str(place.store), "--results", str(place.results)]
    result = CliRunner().invoke(app, ["run", str(job), *roots])
    assert "nowhere" in str(result.exception)
    assert not place.results.exists()
    result = CliRunner().invoke(app, ["run", str(job), "--dry-run", *roots])
    assert "job demo: 2 cells with 2 runs in all" in result.output, "counting needs no corpus"
    assert "nowhere" in str(result.exception)


def test_search_that_cannot_be_begun_is_refused_before_anything_runs(place):
    roots = ["--store", str(place.store), "--results", str(place.results)]
    for more, message in (
        ('sampler = "tpee"', "unknown sampler 'tpee'"),
        ('sampler = "grid"', "make the fields axes"),
        ('pruner = "ashe"', "unknown pruner 'ashe'"),
        ('objective = ["valid/acc9"]', "has the metrics"),
        ('space = ["data.task=choice:three_class,seven_class"]', "cannot be searched"),
    ):
        job = place.write("demo", f'[axes]\ndataset = ["tiny"]\n[search]\n{more}')
        result = CliRunner().invoke(app, ["run", str(job), *roots])
        assert isinstance(result.exception, UsageError), result.output
        assert message in str(result.exception)
        assert not place.results.exists()


def test_run_state_of_a_damaged_status_is_failed_and_says_which_file(place):
    folder = RunFolder.of(place.results, "0" * 16)
    folder.root.mkdir(parents=True)
    folder.status.write_text("{")
    state = run_state(place.results, "0" * 16, 1, ())
    assert state.state == "failed"
    assert str(folder.status) in state.error


def test_several_grids_of_one_job_are_told_apart(place):
    for axis in ("tiny", "other"):
        grid = place.grid(f'[axes]\ndataset = ["{axis}"]')
        store_grid(grid, GridFolder.of(place.results, grid.id))
    roots = ["--results", str(place.results)]
    result = CliRunner().invoke(app, ["status", "demo", *roots])
    assert isinstance(result.exception, UsageError)
    assert "begins the ids of 2 grids" in str(result.exception)
    result = CliRunner().invoke(app, ["status", grid.id, "--json", *roots])
    assert json.loads(result.stdout)["data"]["cells"][0]["state"] == "waiting"


# Leftovers


def leftovers_of(place):
    grid = place.grid('[base]\ndataset = "tiny"')
    place.run_inline(grid)
    folder = RunFolder.of(place.results, grid.cells[0].run_ids[0])
    left = [folder.last, folder.root / ".spec.json.ab12cd_9", folder.evaluation / ".x.parquet.tmp"]
    for path in left:
        path.write_bytes(b"left")
    return folder, left


def test_gc_lists_what_is_left_and_removes_it_only_when_told(place):
    folder, left = leftovers_of(place)
    kept = {path for path in place.results.rglob("*") if path.is_file()} - set(left)
    roots = ["--results", str(place.results)]
    result = CliRunner().invoke(app, ["gc", *roots])
    assert result.exit_code == 0
    assert all(str(path) in result.output for path in left)
    assert all(path.exists() for path in left)
    result = CliRunner().invoke(app, ["gc", "--yes", "--json", *roots])
    assert {each["removed"] for each in json.loads(result.stdout)["data"]} == {True}
    assert {path for path in place.results.rglob("*") if path.is_file()} == kept
    assert folder.is_complete
    assert find_leftovers(place.results) == []


def test_gc_leaves_alone_what_someone_works_with_and_what_may_go_on(place):
    folder, left = leftovers_of(place)
    with hold(folder.lease, "run"):
        assert find_leftovers(place.results) == []
    folder.write_status("FAILED", error="x")
    assert {each.path for each in find_leftovers(place.results)} == set(left[1:])


def test_gc_follows_no_links_and_removes_only_a_clusters_folder(place, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".a.json.tmp").write_text("mine")
    (place.results / "runs").mkdir(parents=True)
    (place.results / "runs" / "link").symlink_to(outside)
    grid = GridFolder.of(place.results, "demo-1")
    precious = tmp_path / "cider-precious"
    precious.mkdir()
    facts = {"host": os.uname().nodename, "pid": 2**22 + 1, "folder": str(precious)}
    write_json_atomic(grid.lease, facts)
    assert str(outside) not in {str(each.path.parent) for each in find_leftovers(place.results)}
    CliRunner().invoke(app, ["gc", "--yes", "--results", str(place.results)])
    assert precious.is_dir()
    assert (outside / ".a.json.tmp").exists()


# On a cluster that runs already


@pytest.mark.slow
def test_grid_on_a_cluster_that_runs_already_joins_it_and_leaves_it_running(place):
    import ray

    from cider_platform.execution.sessions import choose_folder, ray_session

    job = place.write("joined", '[axes]\ndataset = ["tiny"]\nseed = "0:2"')
    with ray_session(choose_folder(), cpus=2, gpus=0, threads=1):
        address = ray.get_runtime_context().gcs_address
        data = place.command("run", job, "--address", address, "--json")
        assert data["ran"] == 2
        assert [cell["state"] for cell in data["cells"]] == ["done"]
        assert ray.cluster_resources()["CPU"] == 2


def test_cluster_of_unknown_size_needs_slots(place):
    job = place.write("joined", "").with_name("small.toml")
    job.write_text('[axes]\ndataset = ["tiny"]\n', encoding="utf-8")
    roots = ["--store", str(place.store), "--results", str(place.results)]
    result = CliRunner().invoke(app, ["run", str(job), "--address", "auto", *roots])
    assert isinstance(result.exception, UsageError)
    assert "give --slots" in str(result.exception)
