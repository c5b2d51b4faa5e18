"""Finding and ending what belongs to a cluster, and noticing that the cluster has died."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cider_platform.execution import cluster_watch, processes
from cider_platform.execution.cluster_watch import ClusterLostError, ClusterWatch
from cider_platform.execution.sessions import remove_folder

SLEEP = """
import sys, time
file = open(sys.argv[1], sys.argv[2])
print("on", flush=True)
time.sleep(60)
"""


@pytest.fixture
def started():
    """Function that starts a process and waits for its first word; all are ended afterwards."""
    made = []

    def start(*words, **options):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, **options)
        made.append(process)
        assert process.stdout.readline()
        return process

    yield start
    for process in made:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "cider-12345678"
    made.mkdir()
    return made


def test_process_is_of_a_folder_that_it_writes_in_or_was_told_of(started, folder, tmp_path):
    (folder / "log").touch()
    other = tmp_path / "other"
    other.touch()
    told = started("sh", "-c", f": {folder}; echo on; sleep 60")
    inherits = started(
        "sh", "-c", "echo on; sleep 60", env={"TMPDIR": str(folder), "PATH": os.environ["PATH"]}
    )
    stranger = started(sys.executable, "-c", SLEEP, str(other), "w")
    found = {each.pid for each in processes.of_folder(folder)}
    assert {told.pid, inherits.pid} <= found
    assert stranger.pid not in found


@pytest.mark.parametrize(("mode", "is_of"), [("a", True), ("r", False)])
def test_process_that_only_reads_in_a_folder_is_not_of_it(started, folder, mode, is_of):
    (folder / "log").touch()
    # Its command line has a relative path, so that nothing but the open file tells.
    process = started(sys.executable, "-c", SLEEP, "log", mode, cwd=folder)
    found = [each.pid for each in processes.of_folder(folder)]
    assert (process.pid in found) == is_of


def test_removing_a_folder_ends_its_processes_even_stopped_ones(started, folder):
    process = started(sys.executable, "-c", SLEEP, str(folder / "log"), "w")
    process.send_signal(signal.SIGSTOP)
    remove_folder(folder)
    assert process.wait(timeout=10) == -signal.SIGKILL
    assert not folder.exists()


def test_folder_of_another_name_is_left_alone(started, tmp_path):
    process = started(sys.executable, "-c", SLEEP, str(tmp_path / "log"), "w")
    remove_folder(tmp_path)
    assert process.poll() is None
    assert (tmp_path / "log").exists()


def test_process_that_has_ended_is_dead_until_it_is_forgotten():
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 10
    while not processes.look(process.pid).is_dead and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.look(process.pid).is_dead
    assert processes.look(process.pid).parent == os.getpid()
    process.wait()
    assert processes.look(process.pid) is None


@pytest.fixture
def cluster(tmp_path):
    """Function that starts a process that is called as one of Ray's."""
    made = []

    def start(name):
        program = tmp_path / name
        if not program.exists():
            shutil.copy(shutil.which("sleep"), program)
        made.append(subprocess.Popen(["sleep", "60"], executable=program))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()


def await_words(watch):
    deadline = time.monotonic() + 10
    while not watch.lost() and time.monotonic() < deadline:
        time.sleep(0.01)
    return watch.lost()


@pytest.mark.parametrize(
    ("name", "words"), [("raylet", "node manager (raylet)"), ("gcs_server", "head (gcs_server)")]
)
def test_death_of_the_head_or_the_node_manager_is_noticed(cluster, folder, name, words):
    watch = ClusterWatch(folder)
    watch.start()
    members = {each: cluster(each) for each in ("gcs_server", "raylet")}
    watch.note_started()
    watch.check()
    members[name].kill()
    assert await_words(watch) == words
    with pytest.raises(ClusterLostError, match=rf"Ray's .*{name}\) died"):
        watch.check()
    watch.stop()


def test_cluster_of_before_is_not_watched(cluster, folder):
    before = cluster("raylet")
    watch = ClusterWatch(folder)
    watch.start()
    cluster("raylet")
    watch.note_started()
    before.kill()
    before.wait()
    assert watch.lost() == ""
    watch.stop()


def test_command_that_waits_in_vain_is_ended_with_a_sentence(
    cluster, started, folder, monkeypatch, capfd
):
    monkeypatch.setattr(cluster_watch, "_PATIENCE_AT_START_SECONDS", 0.2)
    codes = []
    watch = ClusterWatch(folder, end=codes.append)
    watch.start()
    left = started(sys.executable, "-c", SLEEP, str(folder / "log"), "w")
    cluster("gcs_server").kill()
    deadline = time.monotonic() + 10
    while not codes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert codes == [1]
    assert "Ray's head (gcs_server) died, and this command waits" in capfd.readouterr().err
    assert left.wait(timeout=10) == -signal.SIGKILL
    assert not folder.exists()
