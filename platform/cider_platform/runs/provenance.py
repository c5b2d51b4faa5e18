"""Where a run's numbers come from: code, libraries, hardware, corpus; bears no identity.

A training writes one entry each time it begins or goes on, because it may go on elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cider
import cider_platform
from cider_platform.layout import now, read_json, write_json_atomic
from cider_platform.runs.fingerprint import environment

if TYPE_CHECKING:
    from cider.data.store import FeatureStore
    from cider_platform.layout import RunFolder
    from cider_platform.runs.assembly import Runtime

LIBRARIES = ("cider-platform", "torch", "transformers", "numpy", "pyarrow", "ray", "optuna")
_PACKAGES = tuple(Path(package.__path__[0]) for package in (cider, cider_platform))


def record_session(
    folder: RunFolder, runtime: Runtime, store: FeatureStore, *, after_epoch: int
) -> None:
    """Add to a run's ``provenance.json`` where and with what it is trained from here on.

    Args:
        folder: the run.
        runtime: where it is trained.
        store: its corpus.
        after_epoch: epochs that were trained before; 0 at the beginning.
    """
    sessions = read_json(folder.provenance)["sessions"] if folder.provenance.exists() else []
    manifest = store.manifest
    sessions.append(
        {
            "time": now(),
            "after_epoch": after_epoch,
            "host": socket.gethostname(),
            "git": git_state(),
            "code_sha256": code_sha256(),
            "versions": versions(),
            "hardware": {
                **environment(runtime.torch_device, runtime.workers.count),
                "system": platform.platform(),
                "cores": os.cpu_count(),
                "memory_gib": _memory_gib(),
            },
            "corpus": {
                "name": str(manifest.key),
                "content_sha256": manifest.content_sha256,
                "synthetic": manifest.synthetic,
                "source": manifest.source,
                "counts": manifest.counts,
            },
        }
    )
    write_json_atomic(
        folder.provenance, {"schema": 1, "run_id": folder.run_id, "sessions": sessions}
    )


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Return commit, branch and whether files differ from it; None outside of a git checkout.

    A package that was installed into another project's checkout is not part of that one.
    """
    place = _PACKAGES[1]
    try:
        _git(place, "ls-files", "--error-unmatch", "__init__.py")
        changed = _git(place, "status", "--porcelain", "--", *map(str, _PACKAGES))
        return {
            "commit": _git(place, "rev-parse", "HEAD"),
            "branch": _git(place, "rev-parse", "--abbrev-ref", "HEAD"),
            "dirty": bool(changed),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _git(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(place), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


@functools.cache
def code_sha256() -> str:
    """Return a hash of every source file of both packages, by name and content."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted(package.rglob("*.py")):
            content = path.read_bytes()
            name = path.relative_to(package.parent).as_posix()
            digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the libraries that compute; None if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (OSError, ValueError):
        return None


def sessions_of(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the entries of a run, in order; none of one that was trained before there were any."""
    if not folder.provenance.exists():
        return []
    found: list[dict[str, Any]] = read_json(folder.provenance)["sessions"]
    return found
