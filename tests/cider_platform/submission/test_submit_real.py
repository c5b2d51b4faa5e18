"""Submissions to a real Ray head on this machine: results, survival, the cap, tokens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray_head import ROOTS, ray_head
from tiny_corpus import write_tiny_corpus

from cider_platform.grids.grid import make_grid
from cider_platform.grids.job import read_job
from cider_platform.grids.job_files import read_document
from cider_platform.grids.table import result_rows
from cider_platform.layout import RunFolder
from cider_platform.runs.evaluation import evaluate_run
from cider_platform.runs.trial import Runtime, train_run

JOB = """
[base]
dataset = "tiny"
model = "late_fusion"
"model.width" = 8
"text_encoder.width" = 8
"text_encoder.layers" = 1
"training.epochs" = {epochs}
"training.patience" = {epochs}
"training.batch_size" = 24

[axes]
missing = ["rmfm", "rmm"]

[execution]
slots = 2
"""


class Place:
    """A head, the folders its jobs work in, and the command line."""

    def __init__(self, head, folder):
        self.head, self.folder = head, folder
        self.store, self.results = folder / "store", folder / "results"

    def environment(self, token=None):
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(ROOTS),
            "HOME": str(self.folder),
            "RAY_API_SERVER_ADDRESS": self.head.address,
        }
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
            variables.pop(name, None)
        return {**variables, "RAY_AUTH_TOKEN": token} if token else variables

    def start(self, *words, token=None):
        return subprocess.Popen(
            [sys.executable, "-m", "cider_platform", *map(str, words)],
            env=self.environment(token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def type(self, *words, token=None, code=0):
        process = self.start(*words, token=token)
        stdout, stderr = process.communicate(timeout=180)
        assert process.returncode == code, (stdout, stderr)
        return stdout, stderr

    def data(self, *words, **options):
        return json.loads(self.type(*words, "--json", **options)[0])["data"]

    def job(self, name="tiny", epochs=1):
        path = self.folder / f"{name}.toml"
        path.write_text(JOB.format(epochs=epochs))
        return path

    def submit(self, job, *words, **options):
        where = ["--store", self.store, "--results", self.results]
        return self.data("submit", job, *where, *words, **options)

    def drivers(self, name=""):
        """Return the processes that run a job file, or any: its name -> their ids."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_text().split("\0")
                if f"--store={self.store}" in words and words[1:4] == [
                    "-m",
                    "cider_platform",
                    "run",
                ]:
                    found.setdefault(words[4].removesuffix(".toml"), []).append(int(path.parts[2]))
        return found.get(name, []) if name else found


def until(condition, seconds=60.0):
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "it did not come to pass"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submit")
    write_tiny_corpus(folder / "store")
    with ray_head() as head:
        yield Place(head, folder)


def rows_in_this_process(job, place, results):
    """Return the result table of a job whose runs are trained here, without Ray."""
    grid = make_grid(read_job(*read_document(job)), place.store)
    runtime = Runtime(place.store, results, threads=1)
    for cell in grid.cells:
        for spec in cell.specs:
            list(train_run(spec, runtime))
            evaluate_run(RunFolder.of(results, spec.run_id), runtime, cell.conditions)
    return grid, [row.to_dict() for row in result_rows(grid, results)]


def test_submitted_grid_ends_with_the_result_it_has_here(place, tmp_path):
    job = place.job()
    done = place.submit(job, "--wait")
    assert (done["state"], done["exit_code"], done["attached"]) == ("SUCCEEDED", 0, False)
    assert done["job"] == f"{done['grid']}-1"
    grid, here = rows_in_this_process(job, place, tmp_path)
    assert [row.to_dict() for row in result_rows(grid, place.results)] == here
    log, _ = place.type("jobs", "logs", done["job"])
    assert "its turn has come" in log
    assert f"grid {grid.id}" in log


@pytest.mark.slow
def test_finished_grid_submitted_again_runs_nothing(place):
    job = place.job("again")
    done = place.submit(job, "--wait")
    again = place.submit(job, "--wait")
    assert again["job"] == f"{done['grid']}-2"
    assert "this command did 0 runs" in place.type("jobs", "logs", again["job"], "-n", 5)[0]
    assert [each["job"] for each in place.data("jobs", "list")][:2] == [again["job"], done["job"]]


@pytest.mark.slow
def test_grid_survives_its_terminal_and_another_one_attaches(place):
    job = place.job("lasting", epochs=60)
    terminal = place.start("submit", job, "--store", place.store, "--results", place.results,
                           "--wait")  # fmt: skip
    until(lambda: place.drivers("lasting"))
    os.killpg(terminal.pid, signal.SIGKILL)
    terminal.communicate()
    other = place.submit(job)
    assert other["attached"] is True
    followed, _ = place.type("jobs", "logs", other["job"], "-f")
    assert "is done" in followed
    assert place.data("jobs", "status", other["job"])["state"] == "SUCCEEDED"


@pytest.mark.slow
def test_two_terminals_that_submit_one_grid_at_once_make_one_submission(place):
    job = place.job("twice", epochs=2)
    where = ["--store", place.store, "--results", place.results, "--wait", "--json"]
    terminals = [place.start("submit", job, *where) for _ in range(2)]
    told = [json.loads(terminal.communicate(timeout=180)[0])["data"] for terminal in terminals]
    assert {each["job"] for each in told} == {told[0]["grid"] + "-1"}
    assert [each["state"] for each in told] == ["SUCCEEDED"] * 2


@pytest.mark.slow
def test_killed_driver_is_taken_up_by_submitting_again(place):
    job = place.job("killed", epochs=400)
    first = place.submit(job)
    runs = place.results / "runs"
    before = set(runs.iterdir()) if runs.is_dir() else set()
    until(lambda: [each for each in set(runs.iterdir()) - before
                   if (each / "epochs.jsonl").is_file()] if runs.is_dir() else [])  # fmt: skip
    (driver,) = place.drivers("killed")
    os.kill(driver, signal.SIGKILL)
    until(lambda: place.data("jobs", "status", first["job"])["state"] == "FAILED")
    second = place.submit(job, "--wait")
    assert (second["job"], second["state"]) == (f"{first['grid']}-2", "SUCCEEDED")
    for folder in set(runs.iterdir()) - before:
        lines = (folder / "epochs.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 401))


@pytest.mark.slow
def test_running_and_waiting_submissions_stop(place):
    running = place.submit(place.job("running", epochs=5000), "--max-concurrent", 1)
    until(lambda: place.drivers("running"))
    waiting = place.submit(place.job("waiting", epochs=5001), "--max-concurrent", 1)
    until(lambda: place.data("jobs", "status", waiting["job"])["state"] == "WAITING")
    assert place.data("jobs", "stop", waiting["job"])["state"] == "STOPPED"
    assert place.data("jobs", "stop", running["job"])["state"] == "STOPPED"
    until(lambda: not place.drivers("running"))
    assert "had ended already" in place.type("jobs", "stop", running["job"])[1]
    assert not place.drivers("waiting")


@pytest.mark.slow
def test_twenty_grids_at_once_keep_the_cap_and_none_is_lost(place):
    names = [f"many{number}" for number in range(20)]
    where = ["--store", place.store, "--results", place.results, "--axis", "missing=rmfm"]
    # Other numbers of epochs, so that no grid has another one's run.
    jobs = [place.job(name, epochs=1 + number) for number, name in enumerate(names)]
    terminals = [
        place.start("submit", job, *where, "--max-concurrent", 2, "--priority", number % 3)
        for number, job in enumerate(jobs)
    ]
    most, begun = 0, set()
    runs = place.results / "runs"
    limit = time.monotonic() + 570
    while len(begun) < 20 or place.drivers():
        assert time.monotonic() < limit, sorted(begun)
        running = place.drivers()
        most = max(most, len(running))
        begun.update(running)
        time.sleep(0.3)
    assert [terminal.wait() for terminal in terminals] == [0] * 20
    for terminal in terminals:
        terminal.communicate()
    found = until(lambda: _ended(place, "many"), seconds=30)
    assert sorted(each["name"] for each in found) == sorted(names)
    assert {each["state"] for each in found} == {"SUCCEEDED"}
    assert most == 2
    # A run of another test here, stopped before its first epoch ended, has no such file.
    epochs = {len(each.read_text().splitlines()) for each in runs.glob("*/epochs.jsonl")}
    assert epochs >= set(range(1, 21))


def _ended(place, beginning):
    found = [each for each in place.data("jobs", "list") if each["name"].startswith(beginning)]
    return all(each["ended"] for each in found) and found


@pytest.mark.slow
def test_token_protected_head_refuses_without_it_and_with_another(tmp_path):
    secret = "0123456789abcdef0123456789abcdef"
    write_tiny_corpus(tmp_path / "store")
    with ray_head(token=secret) as head:
        place = Place(head, tmp_path)
        job = place.job()
        for words in (["jobs", "list"], ["submit", job], ["jobs", "logs", "a", "-f"]):
            _, told = place.type(*words, code=4)
            assert "asks for a token and none was found" in told
            _, told = place.type(*words, token="f" * 32, code=4)
            assert "refused the token" in told
            assert "f" * 32 not in told
            assert told.count("\n") == 1
        done = place.submit(job, "--wait", token=secret)
        assert done["state"] == "SUCCEEDED"
        log, _ = place.type("jobs", "logs", done["job"], token=secret)
        followed, _ = place.type("jobs", "logs", done["job"], "-f", token=secret)
        assert followed == log
        shown = json.dumps([done, place.data("jobs", "list", token=secret)]) + log
        assert secret not in shown
        files = [path for path in place.results.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        orders = [path for path in head.folder.rglob("order.json") if path.is_file()]
        assert orders
        assert not [path for path in orders if secret in path.read_text()]


def test_nobody_at_the_address_is_one_sentence(tmp_path, monkeypatch):
    from ray_head import Head, free_ports

    place = Place(Head(free_ports(1)[0], tmp_path), tmp_path)
    _, told = place.type("jobs", "list", code=1)
    assert told.startswith("error: no Ray job server answers at http://127.0.0.1:")
    assert told.count("\n") == 1
