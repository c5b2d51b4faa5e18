"""Folders of runs and studies: names, atomic writes, states."""

import json

import pytest

from cider.errors import CiderError, UsageError
from cider_platform.layout import RunFolder, StudyFolder, read_json, write_json_atomic


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x", "a b", "x" * 121, "a\n"])
def test_names_with_path_parts_or_other_characters_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="study name"):
        StudyFolder.of(tmp_path, name)


def test_every_file_of_a_run_lies_in_its_folder(tmp_path):
    folder = RunFolder.of(tmp_path, "0123456789abcdef")
    properties = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    paths = [getattr(folder, name) for name in properties]
    files = [path for path in paths if hasattr(path, "is_relative_to")]
    assert len(files) >= 10
    assert all(path.is_relative_to(tmp_path / "runs" / "0123456789abcdef") for path in files)
    assert len(set(files)) == len(files)


def test_status_goes_from_nothing_to_complete(tmp_path):
    folder = RunFolder.of(tmp_path, "run1")
    assert folder.read_status() == {}
    assert folder.state is None
    folder.write_status("RUNNING", pid=7)
    assert folder.read_status()["pid"] == 7
    assert not folder.is_complete
    folder.write_status("COMPLETE")
    assert folder.is_complete
    assert "pid" not in folder.read_status()


def test_status_of_no_known_state_is_refused(tmp_path):
    folder = RunFolder.of(tmp_path, "run1")
    with pytest.raises(ValueError, match="RUNNING, COMPLETE"):
        folder.write_status("DONE")
    write_json_atomic(folder.status, {"state": "DONE"})
    with pytest.raises(CiderError, match="names no run state"):
        folder.read_status()


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "values.json"
    write_json_atomic(path, {"score": 1.0})
    for value in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json_atomic(path, {"score": value})
    assert json.loads(path.read_text()) == {"score": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "values.json"
    path.write_text("{")
    with pytest.raises(CiderError, match=r"values\.json is not readable JSON"):
        read_json(path)
