"""Finding runs: listed, resolved from the beginning of an id, marked."""

import json
import platform
import subprocess
import sys

import pytest

from cider.errors import NothingMatchedError, UsageError
from cider.spec import DataConfig, RunSpec, SelectionConfig
from cider_platform.layout import RunFolder, write_json_atomic
from cider_platform.lease import hold
from cider_platform.results import all_runs, find_run


def write_run(results, run_id, spec, state="COMPLETE", **result):
    folder = RunFolder.of(results, run_id)
    write_json_atomic(folder.spec, spec.to_dict())
    if result:
        write_json_atomic(folder.result, result)
    folder.write_status(state)
    return folder


@pytest.fixture
def results(tmp_path):
    real = DataConfig(dataset="mosi", content_sha256="0" * 64)
    write_run(tmp_path, "aaaa1111", RunSpec(data=real), score=0.7, metric="acc2", epochs=4)
    write_run(tmp_path, "aaaa2222", RunSpec(), state="PRUNED")
    published = RunSpec(data=real, selection=SelectionConfig(rule="published"))
    write_run(tmp_path, "bbbb3333", published, score=0.8, metric="acc2", epochs=9)
    return tmp_path


def test_results_root_without_runs_has_none(tmp_path):
    assert all_runs(tmp_path) == []
    with pytest.raises(NothingMatchedError, match="runs list"):
        find_run(tmp_path, "a")


def test_unique_beginning_of_an_id_finds_its_run(results):
    assert find_run(results, "b").run_id == "bbbb3333"
    assert find_run(results, "aaaa1").summary()["score"] == 0.7
    assert find_run(results, "aaaa2222").state == "PRUNED"


def test_beginning_of_no_id_or_of_several_is_refused(results):
    for prefix in ("c", "", "aaaa11112"):
        with pytest.raises(NothingMatchedError, match="begins with"):
            find_run(results, prefix)
    with pytest.raises(UsageError, match="2 runs: aaaa1111, aaaa2222"):
        find_run(results, "aaaa")


def test_synthetic_data_and_published_selection_mark_a_run(results):
    marks = {run.run_id: run.marks for run in all_runs(results)}
    assert marks == {
        "aaaa1111": [],
        "aaaa2222": ["synthetic"],
        "bbbb3333": ["published selection"],
    }


def test_imported_corpus_that_was_generated_is_marked_by_its_result(tmp_path):
    spec = RunSpec(data=DataConfig(dataset="mine"))
    write_run(tmp_path, "cccc", spec, synthetic=True, score=0.5)
    assert find_run(tmp_path, "cccc").marks == ["synthetic"]


def test_run_that_says_running_is_stopped_unless_a_living_process_holds_it(tmp_path):
    folder = write_run(tmp_path, "dddd", RunSpec(), state="RUNNING")
    assert find_run(tmp_path, "dddd").state == "STOPPED"
    with hold(folder.lease, "run dddd"):
        assert find_run(tmp_path, "dddd").state == "RUNNING"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder.lease.write_text(json.dumps({"host": platform.node(), "pid": dead.pid}))
    assert find_run(tmp_path, "dddd").state == "STOPPED"
    folder.lease.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert find_run(tmp_path, "dddd").state == "RUNNING"


def test_damaged_run_is_listed_with_its_reason(results):
    RunFolder.of(results, "aaaa1111").spec.write_text("{")
    states = {run.run_id: run for run in all_runs(results)}
    assert states["aaaa1111"].state == "UNREADABLE"
    assert "not readable JSON" in states["aaaa1111"].error
    assert states["bbbb3333"].state == "COMPLETE"
