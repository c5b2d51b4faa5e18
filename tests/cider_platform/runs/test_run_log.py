"""The log of a run: beginnings, warnings, errors, crashes and deaths, and no fault of its own."""

import platform
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import cider_platform
from cider_platform.layout import RunFolder
from cider_platform.runs import run_log

CRASHES = """
import os, signal, sys
from pathlib import Path
from cider_platform.layout import RunFolder
from cider_platform.runs.run_log import attempt
with attempt(RunFolder(Path(sys.argv[1])), "trial 4", in_worker=True):
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def folder(tmp_path):
    return RunFolder.of(tmp_path, "0123")


def kinds(folder):
    return [entry.kind for entry in run_log.read(folder)]


def test_attempt_that_ends_well_says_who_where_and_when(folder):
    with run_log.attempt(folder, "trial 3"):
        pass
    begin, end = run_log.read(folder)
    assert (begin.kind, end.kind) == ("begin", "end")
    found = run_log.last_begin([begin, end])
    assert (found.what, found.host) == ("trial 3", platform.node())
    assert found.oom_kills == run_log.oom_kills()
    assert begin.time <= end.time
    assert end.text.startswith("finished, peak memory ")


def test_error_is_written_with_its_traceback_and_raised(folder):
    with pytest.raises(KeyError), run_log.attempt(folder, "train"):
        {}["absent"]
    error = run_log.read(folder)[-1]
    assert error.kind == "error"
    assert "Traceback (most recent call last):" in error.text
    assert error.text.endswith("KeyError: 'absent'")


def test_attempt_that_is_stopped_is_no_error(folder):
    with pytest.raises(KeyboardInterrupt), run_log.attempt(folder, "train"):
        raise KeyboardInterrupt
    assert kinds(folder) == ["begin", "end"]
    assert "stopped (KeyboardInterrupt)" in run_log.read(folder)[-1].text


@pytest.mark.filterwarnings("always")
def test_warnings_are_noted_up_to_a_number_and_still_shown(folder):
    with warnings.catch_warnings(record=True) as shown, run_log.attempt(folder, "train"):
        for number in range(30):
            warnings.warn(f"odd\nvalue {number}", stacklevel=1)
    assert len(shown) == 30
    noted = [entry for entry in run_log.read(folder) if entry.kind == "warning"]
    assert len(noted) == 20
    assert noted[0].text.startswith("UserWarning: odd value 0 (")


def test_crash_in_a_library_leaves_its_stack(folder):
    roots = Path(cider_platform.__path__[0]).parent, Path(run_log.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, folder.root],
        env={"PYTHONPATH": ":".join(map(str, roots))},
        capture_output=True,
        check=False,
    )
    assert done.returncode < 0
    (begin,) = run_log.read(folder)
    assert "Fatal Python error: Segmentation fault" in begin.text
    assert "Extension modules" not in begin.text


def test_death_of_a_worker_is_noted_with_what_the_kernel_did_meanwhile(folder, monkeypatch):
    monkeypatch.setattr(run_log, "oom_kills", lambda: 4)
    with run_log.attempt(folder, "trial 1"):
        pass
    run_log.lost(folder, "it was killed")
    monkeypatch.setattr(run_log, "oom_kills", lambda: 5)
    run_log.lost(folder, "it was killed")
    first, second = run_log.read(folder)[-2:]
    assert first.text == "it was killed"
    assert second.text == f"it was killed\n{run_log.OOM_KILLED} (1 since the run began)"


def test_log_that_cannot_be_written_ends_nothing(folder):
    folder.log.mkdir(parents=True)
    with run_log.attempt(folder, "train", in_worker=False):
        pass
    run_log.lost(folder, "killed")
    assert run_log.read(folder) == []
    run_log.lost(RunFolder(folder.root / "nowhere"), "killed")
    assert not (folder.root / "nowhere").exists()


def test_reason_of_a_death_is_the_last_that_tune_wrote_without_its_advice(tmp_path):
    file = tmp_path / "error.txt"
    file.write_text(
        "Failure # 1 (occurred at 2026-01-01)\nThe actor died early.\n"
        "Failure # 2 (occurred at 2026-01-02)\nThe actor died unexpectedly.\n\tpid: 7\n"
        "The actor is dead. Worker exit type: SYSTEM_ERROR Worker exit detail: End of file. Some "
        "common causes include: (1) the process was killed by the OOM killer due to high memory\n"
    )
    assert (
        run_log.last_failure(file)
        == "Worker exit type: SYSTEM_ERROR Worker exit detail: End of file."
    )
    file.write_text("Failure # 1 (occurred at 2026-01-01)\nIt is gone.\n")
    assert run_log.last_failure(file) == "It is gone."
    assert run_log.last_failure(tmp_path / "absent") == "no reason is known"
