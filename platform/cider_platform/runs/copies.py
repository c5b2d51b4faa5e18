"""Copies of finished runs and studies in an object store, and back again.

Runs are trained in a folder, whose renames are atomic; an object store has none. So nothing is
trained there: a run is copied once it is complete, its ``status.json`` last, and counts as copied
when that is there. Copying again copies what is missing. Any URI that ``pyarrow.fs`` opens will do:
``s3://``, ``gs://``, ``abfs://``, ``hdfs://``, ``file://``.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cider.errors import CiderError, UsageError
from cider_platform.layout import RunFolder, check_name
from cider_platform.lease import has_living_owner
from cider_platform.results import all_runs
from cider_platform.tokens import mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
_LEFT = ("lease.json", "status.json")
"""Not copied with the others: whose it is stays here, the state comes last."""
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,199}")
_PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was done with one run or study."""

    name: str
    files: int
    """Files that were copied; 0 if all were there."""
    size_bytes: int
    left: str = ""
    """Why it was left alone; empty if it was not."""


def check_uri(uri: str) -> str:
    """Return a URI that copies can go to; whether it can be reached is not tried.

    Raises:
        UsageError: if it is of no known kind, or holds a password or key.
    """
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        raise UsageError(
            f"copies go to a URI of {', '.join(f'{each}://' for each in SCHEMES)}, got "
            f"{mask(uri)!r}"
        )
    if parts.username or parts.password:
        raise UsageError(
            f"{mask(uri)} holds a key or password, which would stand in logs; take it out and "
            "let the cloud's own environment variables or roles give it"
        )
    return uri


class Place:
    """A folder in some file system that ``pyarrow.fs`` knows."""

    def __init__(self, uri: str) -> None:
        """Open the place.

        Raises:
            UsageError: if the URI is of no known kind, or holds a password or key.
            CiderError: if it cannot be reached.
        """
        from pyarrow import fs  # noqa: PLC0415 - heavy

        self.uri = check_uri(uri)
        try:
            self.files, self.base = fs.FileSystem.from_uri(uri)
        except (OSError, ValueError) as error:
            raise _unreachable(uri, error) from error

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size of every file below a folder, by its path from there.

        Raises:
            CiderError: if the place cannot be read, or names in it lead elsewhere.
        """
        from pyarrow import fs  # noqa: PLC0415 - heavy

        root = f"{self.base}/{folder}".rstrip("/")
        selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
        try:
            found = self.files.get_file_info(selector)
        except OSError as error:
            raise _unreachable(self.uri, error) from error
        paths = {each.path: each for each in found if each.type == fs.FileType.File}
        named = {path[len(root) + 1 :]: int(each.size) for path, each in paths.items()}
        for name in named:
            _check_path(name, self.uri)
        return named

    def put(self, source: Path, name: str) -> int:
        """Copy a file to a path here; return its size in bytes."""
        target = f"{self.base}/{name}"
        try:
            self.files.create_dir(target.rpartition("/")[0], recursive=True)
            with source.open("rb") as content, self.files.open_output_stream(target) as stream:
                shutil.copyfileobj(content, stream, _PIECE_BYTES)
        except OSError as error:
            raise _unreachable(self.uri, error) from error
        return source.stat().st_size

    def get(self, name: str, target: Path) -> int:
        """Copy a path here to a file; return its size in bytes."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                self.files.open_input_stream(f"{self.base}/{name}") as stream,
                target.open("wb") as content,
            ):
                shutil.copyfileobj(stream, content, _PIECE_BYTES)
        except OSError as error:
            raise _unreachable(self.uri, error) from error
        return target.stat().st_size


def _unreachable(uri: str, error: Exception) -> CiderError:
    reason = mask(" ".join(str(error).split()))[:300]
    return CiderError(
        f"{mask(uri)} cannot be used: {reason}; check the name, the region and the credentials"
    )


def _check_path(name: str, uri: str) -> None:
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise CiderError(
            f"{mask(uri)} holds {name!r}, which is no file of a run; nothing of it is copied"
        )


def push(results: Path, place: Place, runs: Sequence[str] = ()) -> Iterator[Copied]:
    """Copy complete runs, and the studies, to a place; yield what was done with each.

    Args:
        results: root of the results.
        place: where to.
        runs: ids of the runs that are meant; none means all, and the studies.
    """
    for record in all_runs(results):
        if runs and record.run_id not in runs:
            continue
        if record.state != "COMPLETE":
            yield Copied(name=record.run_id, files=0, size_bytes=0, left=f"is {record.state}")
            continue
        yield push_run(record.folder, place)
    if not runs:
        for folder in sorted((results / "studies").glob("*/")):
            yield push_study(folder, place)


def push_run(folder: RunFolder, place: Place) -> Copied:
    """Copy one complete run; files that are there in the same size are left."""
    name = f"runs/{folder.run_id}"
    count, size = _put_missing(folder.root, name, place)
    present = place.sizes(name)
    if count or "status.json" not in present:
        size += place.put(folder.status, f"{name}/status.json")
        count += 1
    return Copied(name=folder.run_id, files=count, size_bytes=size)


def push_study(folder: Path, place: Place) -> Copied:
    """Copy a study; files that are there in the same size are left."""
    name = f"studies/{check_name('study', folder.name)}"
    count, size = _put_missing(folder, name, place, skipped=("tune",))
    return Copied(name=folder.name, files=count, size_bytes=size)


def _put_missing(
    folder: Path, name: str, place: Place, skipped: Sequence[str] = ()
) -> tuple[int, int]:
    there, count, size = place.sizes(name), 0, 0
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        is_meant = path.is_file() and not path.is_symlink() and not path.name.startswith(".")
        if not is_meant or relative in _LEFT or relative.split("/")[0] in skipped:
            continue
        # A journal grows; every other file is written once, under a name that says what it is.
        if there.get(relative) != path.stat().st_size:
            size += place.put(path, f"{name}/{relative}")
            count += 1
    return count, size


def pull(place: Place, results: Path, runs: Sequence[str] = ()) -> Iterator[Copied]:
    """Fetch complete runs, and studies that are not here; yield what was done with each.

    A run that is complete here gets the evaluations it lacks; one that is being trained here is
    left alone.

    Args:
        place: where from.
        results: root of the results.
        runs: ids of the runs that are meant; none means all, and the studies.
    """
    for run_id, sizes in _folders(place, "runs").items():
        if runs and run_id not in runs:
            continue
        if "status.json" not in sizes:
            yield Copied(name=run_id, files=0, size_bytes=0, left="was not copied to its end")
            continue
        yield _pull_run(place, RunFolder.of(results, run_id), sizes)
    if not runs:
        for study, sizes in _folders(place, "studies").items():
            yield _pull_study(place, results / "studies" / check_name("study", study), sizes)


def _folders(place: Place, kind: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for path, size in sorted(place.sizes(kind).items()):
        name, _, inner = path.partition("/")
        if inner:
            found.setdefault(check_name(kind[:-1], name), {})[inner] = size
    return found


def _pull_run(place: Place, folder: RunFolder, sizes: dict[str, int]) -> Copied:
    name = f"runs/{folder.run_id}"
    if folder.is_complete:
        lacking = [
            each for each in sizes if each not in _LEFT and not (folder.root / each).exists()
        ]
        size = sum(_fetch(place, f"{name}/{each}", folder.root / each) for each in lacking)
        return Copied(name=folder.run_id, files=len(lacking), size_bytes=size)
    if has_living_owner(folder.lease):
        return Copied(name=folder.run_id, files=0, size_bytes=0, left="is being trained here")
    size = _fetch_folder(place, name, sizes, folder.root)
    return Copied(name=folder.run_id, files=len(sizes), size_bytes=size)


def _pull_study(place: Place, folder: Path, sizes: dict[str, int]) -> Copied:
    if folder.exists():
        left = "is here already"
        return Copied(name=folder.name, files=0, size_bytes=0, left=left)
    size = _fetch_folder(place, f"studies/{folder.name}", sizes, folder)
    return Copied(name=folder.name, files=len(sizes), size_bytes=size)


def _fetch(place: Place, name: str, target: Path) -> int:
    part = target.with_name(f".{target.name}.part")
    size = place.get(name, part)
    part.replace(target)
    return size


def _fetch_folder(place: Place, name: str, sizes: dict[str, int], target: Path) -> int:
    """Fetch a folder beside its place, then put it there in one step."""
    part, old = (target.with_name(f".{target.name}.{each}") for each in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    total = 0
    for relative, size in sizes.items():
        found = place.get(f"{name}/{relative}", part / relative)
        if found != size:
            raise CiderError(
                f"{mask(place.uri)}/{name}/{relative} changed while it was fetched; give the "
                "command again"
            )
        total += found
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.replace(old)
    part.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return total
