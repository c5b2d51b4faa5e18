"""Job files: found by name beside the program or by path, and read as data."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from cider.errors import UsageError
from cider_platform.grids.texts import check_job_name, unknown

SUFFIX = ".toml"
_LONGEST = 1_000_000


def shipped_folder() -> Path:
    """Return where the program's own job files lie: in the package, or at a checkout's root."""
    packaged = Path(str(files("cider_platform"))) / "jobs"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "jobs"


def shipped_jobs() -> dict[str, Path]:
    """Return the program's own job files by name, in order."""
    return {path.stem: path for path in sorted(shipped_folder().glob(f"*{SUFFIX}"))}


def find_job(name_or_path: str) -> Path:
    """Return the file of a job.

    Args:
        name_or_path: what ends with ``.toml`` is a path, anything else the name of a shipped job.

    Raises:
        UsageError: if there is no such job; the message names the nearest one.
    """
    if name_or_path.endswith(SUFFIX):
        return Path(name_or_path)
    known = shipped_jobs()
    if name_or_path not in known:
        error = unknown("job", name_or_path, known)
        raise UsageError(f"{error}; your own job is given as a path that ends with {SUFFIX}")
    return known[name_or_path]


def read_document(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a job file, without its ending, and its parsed content.

    Raises:
        UsageError: if it cannot be read, is no TOML, larger than 1 MB, or has no proper name.
    """
    name = check_job_name(path.name.removesuffix(SUFFIX))
    try:
        if not path.is_file():
            raise UsageError(f"there is no job file {path}")
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise UsageError(f"the job file {path} is larger than {_LONGEST // 1_000_000} MB")
        return name, tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"the job file {path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"the job file {path} nests lists or tables too deep") from None
    except ValueError as error:
        raise UsageError(f"the job file {path} is not TOML: {error}") from None
