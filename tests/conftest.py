"""Options and fixtures of the whole suite: where the recorded vectors of the published code lie."""

from __future__ import annotations

from pathlib import Path

import pytest

ASSETS = Path(__file__).parent / "assets"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=ASSETS / "golden",
        metavar="DIR",
        help="folder of recorded vectors (case_*.safetensors, protocols.safetensors); "
        "default: those of the repository",
    )


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("golden_dir")
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden-dir must be a folder, got {folder}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``golden_case`` (a Path) once for every recorded case."""
    if "golden_case" in metafunc.fixturenames:
        folder = metafunc.config.getoption("golden_dir").resolve()
        cases = sorted(folder.glob("case_*.safetensors"))
        reason = f"{folder} has no case_*.safetensors"
        skipped = pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))
        metafunc.parametrize(
            "golden_case", [pytest.param(path, id=path.stem) for path in cases] or [skipped]
        )


@pytest.fixture(scope="session")
def golden_dir(pytestconfig: pytest.Config) -> Path:
    folder: Path = pytestconfig.getoption("golden_dir").resolve()
    return folder


@pytest.fixture(scope="session")
def published_dir() -> Path:
    """The published tables as CSV."""
    return ASSETS / "published"
