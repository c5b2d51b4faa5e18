"""How many trials and workers this machine carries, as far as this process may use it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cider.errors import UsageError

DRIVER_BYTES = 1_200_000_000
"""Memory of the driver and of Ray itself (measured: 0.9 GB)."""
LEAST_TRIAL_BYTES = 500_000_000
"""No worker takes less; what one takes is measured when it trains
(``cider_platform.search.packing``)."""

_CGROUP = Path("/sys/fs/cgroup")
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """How many trials run at a time, and what each of them holds."""

    slots: int
    """At most, where ``is_auto``."""
    cpus_per_trial: int
    """Of each worker of a trial."""
    gpus_per_trial: float
    """Of all workers of a trial together."""
    workers: int = 1
    """Processes that train one trial together."""
    num_gpus: int = 0
    """GPUs there are for all trials; 0 on the CPU."""
    is_auto: bool = False
    """True if the memory that trials are seen to take decides how many of them share a device."""

    @property
    def cpus(self) -> int:
        """Cores of all trials that run at a time."""
        return self.slots * self.workers * self.cpus_per_trial

    @property
    def gpus_per_worker(self) -> float:
        """Share of a GPU of each worker, unless ``is_auto``."""
        return self.gpus_per_trial / self.workers


def choose_slots(
    device: str,
    *,
    slots: int | None = None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float | None = None,
    num_gpus: int = 0,
    workers: int = 1,
) -> Slots:
    """Return the slots of a search: those asked for, or as many as cores, memory and GPUs carry.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        slots: trials at a time; None is as many as their memory and the cores allow.
        cpus_per_trial: cores, and threads, of each worker of a trial.
        gpus_per_trial: GPUs that one trial takes; None is what its memory needs, or, with several
            workers, a whole one for each of them.
        num_gpus: GPUs there are.
        workers: processes that train one trial together.

    Raises:
        UsageError: if not even one trial fits, or the numbers are not above zero.
    """
    if min(cpus_per_trial, workers, 1 if slots is None else slots) < 1:
        raise UsageError(
            "--slots, --cpus-per-trial and --workers-per-trial must be at least 1, got "
            f"{slots}, {cpus_per_trial} and {workers}"
        )
    on_gpu = device.startswith("cuda")
    # NCCL refuses two workers on one GPU, so there only whole ones can be handed out.
    is_auto = (gpus_per_trial is None and workers == 1) if on_gpu else slots is None
    if gpus_per_trial is not None and not on_gpu:
        raise UsageError(
            f"--gpus-per-trial {gpus_per_trial:g} was given, but the device is {device}; add "
            "--device cuda"
        )
    share = (1.0 * workers if gpus_per_trial is None else gpus_per_trial) if on_gpu else 0.0
    if device.startswith("cuda:"):
        raise UsageError(
            f"a search hands out GPUs itself, got device {device!r}; use --device cuda, and "
            "CUDA_VISIBLE_DEVICES to leave some out"
        )
    at_least = 1 if is_auto else slots or 1
    if on_gpu and not 0 < share * at_least <= num_gpus:
        raise UsageError(
            f"{at_least} trials at a time with {share:g} GPUs each need more than the {num_gpus} "
            "there are, or none at all; change --slots or --gpus-per-trial"
        )
    if slots is None:
        slots = min(usable_cpus() // cpus_per_trial, _fitting_in_memory()) // workers
        if on_gpu and not is_auto:
            slots = min(slots, int(num_gpus / share + 1e-9))
    return Slots(
        slots=max(1, slots),
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=share,
        workers=workers,
        num_gpus=num_gpus if on_gpu else 0,
        is_auto=is_auto,
    )


def cluster_slots(
    address: str,
    device: str,
    *,
    slots: int | None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float | None = None,
    workers: int = 1,
    or_in: str = "",
) -> Slots:
    """Return the slots of a cluster that runs already, whose machines are not this one's to count.

    Args:
        address: of the cluster, for the message.
        device: ``cpu`` or ``cuda``.
        slots: trials at a time.
        cpus_per_trial: cores, and threads, of each worker of a trial.
        gpus_per_trial: GPUs that one trial takes; None is a whole one for each worker.
        workers: processes that train one trial together.
        or_in: where else the number of slots could stand, for the message.

    Raises:
        UsageError: without ``slots``.
    """
    if not slots:
        raise UsageError(
            f"how many trainings the cluster at {address} carries is not known here; give --slots"
            + (f", or {or_in}" if or_in else "")
        )
    share = (1.0 * workers if gpus_per_trial is None else gpus_per_trial) if device == "cuda" else 0
    return Slots(
        slots=slots, cpus_per_trial=cpus_per_trial, gpus_per_trial=float(share), workers=workers
    )


def read_auto(name: str, text: str, kind: type[Number]) -> Number | None:
    """Return the number an option says, or None for ``auto``.

    Raises:
        UsageError: if it is neither.
    """
    if text == "auto":
        return None
    try:
        number = kind(text)
    except ValueError:
        number = kind(0)
    if not 0 < number < 1_000_000:
        whole = "a whole number of at least 1" if kind is int else "a number above 0, e.g. 0.25"
        raise UsageError(f"{name} must be auto or {whole}; got {text!r}")
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The workers of one training: how many, and what each of them holds."""

    least: int
    most: int
    """Above ``least``: as many as there is room for."""
    cpus: int
    """Cores, and threads, of each worker."""
    gpus: float = 0.0
    """Share of a GPU of each worker."""

    def __str__(self) -> str:
        number = str(self.most) if self.least == self.most else f"{self.least} to {self.most}"
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{number} workers with {self.cpus} core{'s' * (self.cpus > 1)}{gpus} each"


def choose_group(
    workers: str,
    device: str,
    *,
    threads: int = 0,
    gpus_per_worker: float | None = None,
    num_gpus: int = 0,
) -> Group:
    """Return the workers of a training.

    Args:
        workers: how many, ``N``, or ``LEAST:MOST`` for as many as this machine has room for.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: threads of each worker; 0 shares the cores out.
        gpus_per_worker: share of a GPU of each worker; None is a whole one on ``cuda``.
        num_gpus: GPUs there are.

    Raises:
        UsageError: if the text is no such number or range, or the GPUs do not fit.
    """
    least, most = _range(workers)
    if most == 1 and gpus_per_worker is not None:
        raise UsageError(
            f"--gpus-per-worker is for several workers, got {gpus_per_worker:g} with one; add "
            "--workers, or leave it out"
        )
    if most > 1 and device.startswith("cuda:"):
        raise UsageError(
            f"workers are handed out GPUs, got device {device!r}; use --device cuda, and "
            "CUDA_VISIBLE_DEVICES to leave some out"
        )
    on_gpu = device.startswith("cuda")
    share = (1.0 if on_gpu else 0.0) if gpus_per_worker is None else gpus_per_worker
    if on_gpu and not 0 < share * least <= num_gpus:
        raise UsageError(
            f"{least} workers with {share:g} GPUs each need more than the {num_gpus} there are, or "
            "none at all; change --workers or --gpus-per-worker"
        )
    if share and not on_gpu:
        raise UsageError(
            f"--gpus-per-worker {share:g} was given, but the device is {device}; add --device cuda"
        )
    cpus = threads or max(1, usable_cpus() // most)
    room = max(least, usable_cpus() // cpus)
    if on_gpu:
        room = min(room, int(num_gpus / share + 1e-9))
    # A fixed number is what was asked for; a range is for this machine to fill.
    return Group(least=least, most=min(most, room) if least < most else most, cpus=cpus, gpus=share)


def _range(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    try:
        least = int(first)
        most = int(last) if colon else least
    except ValueError:
        least = most = 0
    if not 1 <= least <= most:
        raise UsageError(
            "--workers must be a number of at least 1, or LEAST:MOST with both of them and LEAST "
            f"not above MOST, e.g. 1:4; got {text!r}"
        )
    return least, most


def usable_cpus() -> int:
    """Return the cores this process may use: its affinity, or a container's quota if smaller."""
    cores = len(os.sched_getaffinity(0))
    quota = _words(_CGROUP / "cpu.max")  # "200000 100000", or "max 100000"
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def _fitting_in_memory() -> int:
    return max(1, (usable_memory() - DRIVER_BYTES) // LEAST_TRIAL_BYTES)


def usable_memory() -> int:
    """Return the bytes of memory that are free to use here: the machine's, or a container's."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    free = int(found.split()[1]) * 1024
    limit, used = _words(_CGROUP / "memory.max"), _words(_CGROUP / "memory.current")
    if limit and limit[0].isdigit() and used:
        free = min(free, int(limit[0]) - int(used[0]))
    return free


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
