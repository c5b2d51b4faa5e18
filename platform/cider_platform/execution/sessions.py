"""A Ray cluster of this machine alone, for as long as one command runs; or one that runs already.

Nothing is written to the user's home, nothing listens beyond this machine, and the cluster's ports
need a token that only this command knows. Ray is configured through the process environment, which
must be set before ``import ray``: import Ray inside the session, never above it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import re
import secrets
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cider
import cider_platform
from cider.errors import CiderError
from cider_platform.execution import processes
from cider_platform.execution.cluster_watch import ClusterWatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

OBJECT_STORE_BYTES = 100_000_000
"""Ray asks for at least 75 MB. No data travels through it (DESIGN 4)."""

# AF_UNIX paths end at 107 bytes and Ray adds about 62 to its folder.
_LONGEST_FOLDER = 43
_INNER = "r"
_PREFIX = "cider-"
_ADDED = len(f"/{_PREFIX}12345678/") + len(_INNER)


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Return the variables Ray, its workers and their torch read."""
    values = {
        # What they leave there when they are killed goes with the folder.
        "TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Workers inherit both: threads of torch and BLAS, and where the packages lie.
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(_import_roots()),
        # Workers of one training talk to each other inside this machine.
        "GLOO_SOCKET_IFNAME": "lo",
        **_DRIVER_VARIABLES,
    }
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        del values["RAY_AUTH_TOKEN"]
    return values


_DRIVER_VARIABLES = {
    # Relative paths in a worker mean what they mean here.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # What Tune would print or log for itself: the ledger and the run folders have it.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Tune's snapshots are never read back, so it need not write them while it runs.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    # Ctrl-C is handled by the search, which tells how to go on.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A lost worker of a training is noticed within this time; such a cluster is not preempted.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Tune gives up a reused worker, and loses its next trial, if the last one needs longer.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}
"""What a driver tells Ray on any cluster: its own or another's."""


@functools.cache
def _token() -> str:
    """Return this process's token: Ray reads it once, so a second cluster must have the same."""
    return secrets.token_hex(32)


def _import_roots() -> list[str]:
    """Return folders to put before the workers' import path, absolute."""
    roots = [Path(module.__path__[0]).resolve().parent for module in (cider, cider_platform)]
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    inherited = [
        str(Path(entry).absolute())
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if entry
    ]
    ours = [str(root) for root in roots if root not in installed]
    return list(dict.fromkeys([*ours, *inherited]))


@contextlib.contextmanager
def _set_environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def choose_folder() -> Path:
    """Return a new name for the folder of one cluster, with a path short enough for sockets.

    It is made by ``ray_session``, so that its name can be written down before there is anything to
    clean up.

    Raises:
        CiderError: if the system's folder for temporary files has too long a name.
    """
    for parent in (tempfile.gettempdir(), os.sep + "tmp"):
        if len(parent) + _ADDED <= _LONGEST_FOLDER and os.access(parent, os.W_OK):
            return Path(parent) / f"{_PREFIX}{secrets.token_hex(4)}"
    raise CiderError(
        f"the folder for temporary files, {tempfile.gettempdir()}, has too long a name for Ray's "
        f"sockets; set TMPDIR to one of at most {_LONGEST_FOLDER - _ADDED} characters"
    )


def remove_folder(folder: Path) -> None:
    """End what still runs for a cluster's folder and remove it; nothing is done to other folders.

    A killed driver takes Ray's main processes with it, but their helpers live on for a minute, and
    a worker that is stuck for ever.
    """
    # The name may come from a lease that anyone could have written.
    if re.fullmatch(rf"{_PREFIX}[0-9a-f]{{8}}", folder.name):
        processes.end_all_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_folder(previous: Mapping[str, Any]) -> None:
    """Remove the cluster's folder that a killed driver left on this machine, by its lease."""
    folder = previous.get("folder")
    if isinstance(folder, str) and previous.get("host") == platform.node():
        remove_folder(Path(folder))


@contextlib.contextmanager
def ray_session(folder: Path, *, cpus: int, gpus: int, threads: int) -> Iterator[ClusterWatch]:
    """Run a Ray cluster on this machine while the context lasts; ``folder`` is removed after it.

    Args:
        folder: from ``choose_folder``.
        cpus: CPUs the cluster may hand out.
        gpus: GPUs the cluster may hand out.
        threads: threads of numerical libraries in every worker.

    Yields:
        what knows whether the cluster lives.

    Raises:
        CiderError: if Ray does not start; ``ClusterLostError`` if it dies while it starts.
    """
    watch = ClusterWatch(folder)
    with _set_environment(_environment(folder, threads)):
        import ray  # noqa: PLC0415 - reads the environment when it is imported
        from ray._raylet import (  # type: ignore[attr-defined] # noqa: PLC0415
            AuthenticationTokenLoader,
            Config,
        )

        # Whoever imported Ray before had it remember that there are no tokens.
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        # Ray prints the deaths of workers on stdout, where --json prints its document, and has no
        # option for it; the search tells of them.
        ray._private.worker._worker_logs_enabled = False
        try:
            try:
                folder.mkdir(mode=0o700)
                watch.start()
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    # Ray opens its folder to every user of the machine; the one around it stays
                    # this user's alone.
                    _temp_dir=str(folder / _INNER),
                )
            except (OSError, RuntimeError, ValueError) as error:
                watch.check()
                reason = str(error).strip().splitlines()[0]
                raise CiderError(f"Ray did not start on this machine: {reason}") from error
            watch.note_started()
            yield watch
        finally:
            if watch.lost():
                # Leaving a broken cluster politely would wait for answers that do not come.
                processes.end_all_of(folder)
            ray.shutdown()
            watch.stop()
            remove_folder(folder)


class Watch(Protocol):
    """Knows whether a cluster lives."""

    def check(self) -> None:
        """Raise ``ClusterLostError`` if something has died."""


class _NobodyWatches:
    """Of a cluster that others look after: Ray's own errors say that it is gone."""

    def check(self) -> None:
        """Do nothing."""


def cluster_session(
    folder: Path, *, address: str, cpus: int, gpus: int, threads: int
) -> AbstractContextManager[Watch]:
    """Return a session on the cluster at an address, or on one of this machine alone without it.

    Args:
        folder: from ``choose_folder``; not used with an address.
        address: of a cluster that runs already, as ``ray.init`` takes it (``auto`` inside a job of
            that cluster); empty starts one here.
        cpus: CPUs that a cluster here may hand out.
        gpus: GPUs that a cluster here may hand out.
        threads: threads of numerical libraries in every worker.
    """
    if address:
        return _attached(address, threads)
    return ray_session(folder, cpus=cpus, gpus=gpus, threads=threads)


@contextlib.contextmanager
def _attached(address: str, threads: int) -> Iterator[Watch]:
    with _set_environment(_DRIVER_VARIABLES):
        import ray  # noqa: PLC0415 - reads the environment when it is imported

        ray._private.worker._worker_logs_enabled = False
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads)}},
            )
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CiderError(f"the Ray cluster at {address} does not answer: {reason}") from error
        try:
            yield _NobodyWatches()
        finally:
            ray.shutdown()
