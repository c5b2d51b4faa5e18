from pathlib import Path

import pytest

from cider.errors import UsageError
from cider_platform.roots import results_root, store_root


@pytest.fixture(autouse=True)
def no_roots(monkeypatch):
    for name in ("CIDER_STORE", "CIDER_RESULTS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_root_option_goes_before_environment_before_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store_root() == tmp_path / "home/.local/share/cider-platform/store"
    assert results_root() == tmp_path / "home/.local/share/cider-platform/results"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert store_root() == tmp_path / "data/cider-platform/store"
    monkeypatch.setenv("CIDER_STORE", str(tmp_path / "environment"))
    assert store_root() == tmp_path / "environment"
    assert store_root(tmp_path / "option") == tmp_path / "option"
    assert results_root() == tmp_path / "data/cider-platform/results"


def test_root_relative_xdg_folder_is_ignored_as_its_specification_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert store_root() == tmp_path / ".local/share/cider-platform/store"


def test_root_is_absolute_and_knows_the_home_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store_root(Path("here")) == tmp_path / "here"
    assert results_root(Path("~/there")) == tmp_path / "home" / "there"


def test_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--results \(or CIDER_RESULTS\) must name a folder"):
        results_root(tmp_path / "file")
