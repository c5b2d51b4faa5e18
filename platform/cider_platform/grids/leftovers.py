"""What finished and dead work has left behind under a results root, and its removal.

Something is left over only if no living process holds the lease of what it belongs to; the lease is
held while it is removed.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cider.errors import CiderError
from cider_platform.execution.sessions import remove_left_folder
from cider_platform.layout import GridFolder, RunFolder, StudyFolder, read_json
from cider_platform.lease import LeaseTakenError, has_living_owner, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

# What ``layout.write_bytes_atomic`` and ``write_checkpoint`` write before they rename.
_HALF_WRITTEN = re.compile(r"\.[\w.-]+\.([a-z0-9_]{8}|tmp)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A file or folder that nobody will read again."""

    what: str
    path: Path
    num_bytes: int
    lease: Path
    """Of the run, study or grid it belongs to."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"what": self.what, "path": str(self.path), "bytes": self.num_bytes}


def find_leftovers(results: Path) -> list[Leftover]:
    """Return what is left over, by path; nothing is changed."""
    found = [
        *(each for path in _folders(results / "runs") for each in _of_run(RunFolder(path))),
        *(each for path in _folders(results / "studies") for each in _of_study(path)),
        *(each for path in _folders(results / "grids") for each in _of_grid(path)),
    ]
    return sorted(found, key=lambda each: str(each.path))


def _folders(parent: Path) -> list[Path]:
    # A link may lead anywhere: nothing behind one is ours to remove.
    paths = parent.iterdir() if parent.is_dir() else ()
    return [path for path in paths if path.is_dir() and not path.is_symlink()]


def _of_run(folder: RunFolder) -> Iterator[Leftover]:
    if has_living_owner(folder.lease):
        return
    try:
        state = folder.state
    except CiderError:
        return  # not ours to judge: runs why says what is wrong with it
    if state in ("COMPLETE", "PRUNED") and folder.last.is_file():
        yield _leftover(f"checkpoint of a {state.lower()} run", folder.last, folder.lease)
    if state == "PRUNED" and folder.best.is_file():
        yield _leftover("weights of a pruned run", folder.best, folder.lease)
    predictions = sorted(folder.predictions.glob("protocol=*"))
    for place in (folder.root, folder.checkpoint, folder.evaluation, *predictions):
        yield from _half_written(place, folder.lease)


def _of_study(path: Path) -> Iterator[Leftover]:
    folder = StudyFolder(path)
    if has_living_owner(folder.lease):
        return
    yield from _ray_folder(folder.lease)
    if folder.tune.is_dir() and not folder.tune.is_symlink():
        yield _leftover("Ray Tune's own files, which nobody reads", folder.tune, folder.lease)
    yield from _half_written(path, folder.lease)


def _of_grid(path: Path) -> Iterator[Leftover]:
    folder = GridFolder(path)
    if has_living_owner(folder.lease):
        return
    yield from _ray_folder(folder.lease)
    if folder.cancel.is_file():
        yield _leftover("request to stop that nobody waits for", folder.cancel, folder.lease)
    yield from _half_written(path, folder.lease)


def _ray_folder(lease: Path) -> Iterator[Leftover]:
    """Yield the folder of the Ray cluster that a killed driver has left."""
    try:
        facts = read_json(lease)
    except (CiderError, OSError):
        return
    folder = Path(str(facts.get("folder", ""))) if isinstance(facts, dict) else Path()
    if folder.name and folder.is_absolute() and folder.is_dir():
        yield _leftover("folder of a dead Ray cluster", folder, lease)


def _half_written(place: Path, lease: Path) -> Iterator[Leftover]:
    for path in place.iterdir() if place.is_dir() else ():
        if path.is_file() and not path.is_symlink() and _HALF_WRITTEN.fullmatch(path.name):
            yield _leftover("half-written file", path, lease)


def _leftover(what: str, path: Path, lease: Path) -> Leftover:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    size = sum(each.lstat().st_size for each in files)
    return Leftover(what=what, path=path, num_bytes=size, lease=lease)


def remove(leftover: Leftover) -> bool:
    """Remove something left over; return False if someone has begun to work with it meanwhile."""
    is_cluster = not leftover.path.is_relative_to(leftover.lease.parent)
    try:
        with hold(leftover.lease, str(leftover.path)) as lease:
            if is_cluster:
                # Ends what still runs there; only folders that are a cluster's are removed.
                remove_left_folder(lease.previous)
            elif leftover.path.is_dir():
                shutil.rmtree(leftover.path)
            else:
                leftover.path.unlink(missing_ok=True)
    except LeaseTakenError:
        return False
    return not leftover.path.exists()
