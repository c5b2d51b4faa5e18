"""A built wheel holds all it needs and works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

NOT_SHIPPED = {".pyc", ".pyo"}


def _run(*command: str | Path, folder: Path) -> str:
    """Run a command without the test process's module path; return its output."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=root)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment with the wheel in it.

    The libraries are lent by this environment through a .pth file, which makes its packages
    importable but does not run its own .pth files: an editable installation here stays unseen.
    """
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    paths = {name: str(folder) for name in ("base", "platbase")}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    site.joinpath("lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = folder / "bin" / "python"
    install = ("install", "--no-deps", "--no-index", "--force-reinstall", "--quiet", wheel)
    _run(sys.executable, "-m", "pip", "--python", python, *install, folder=folder)
    return folder / "bin"


def test_wheel_holds_every_file_of_the_packages_and_the_jobs(wheel: Path, root: Path):
    homes = {
        "cider": root / "cider",
        "cider_platform": root / "platform" / "cider_platform",
        "cider_platform/jobs": root / "jobs",
    }
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in homes.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in NOT_SHIPPED
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "cider/published/complexity.csv",
        "cider/published/results.csv",
        "cider/py.typed",
        "cider_platform/py.typed",
        "cider_platform/jobs/README.md",
    } <= expected
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_wheel_in_a_clean_environment_imports_from_there(installed: Path, tmp_path: Path):
    program = "import cider, cider_platform; print(cider.__file__); print(cider_platform.__file__)"
    output = _run(installed / "python", "-c", program, folder=tmp_path)
    for place in output.splitlines():
        assert Path(place).is_relative_to(installed.parent), place


def test_jobs_are_found_by_name_in_an_installed_wheel(installed: Path, tmp_path: Path, root: Path):
    program = (
        "from cider_platform.grids.job_files import shipped_jobs; "
        "print(*(f'{name} {path}' for name, path in shipped_jobs().items()), sep='\\n')"
    )
    output = _run(installed / "python", "-c", program, folder=tmp_path)
    found = dict(line.split(" ", 1) for line in output.splitlines())
    assert set(found) == {path.stem for path in (root / "jobs").glob("*.toml")}
    assert all(Path(path).is_relative_to(installed.parent) for path in found.values())


def test_console_script_of_the_wheel_runs_from_any_folder(installed: Path, tmp_path: Path):
    assert "tune" in _run(installed / "cider-platform", "--help", folder=tmp_path)
