"""How many trials this machine carries at a time, as far as this process may use it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cider.errors import UsageError

DRIVER_BYTES = 1_200_000_000
"""Memory of the driver and of Ray itself (measured: 0.9 GB)."""
TRIAL_BYTES = 1_100_000_000
"""Memory of one worker with a model of the published size (measured: 0.8 to 1.1 GB)."""

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """How many trials run at a time, and what each of them holds."""

    slots: int
    cpus_per_trial: int
    gpus_per_trial: float


def choose_slots(
    device: str,
    *,
    slots: int | None = None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float | None = None,
    num_gpus: int = 0,
) -> Slots:
    """Return the slots of a search: those asked for, or as many as cores, memory and GPUs carry.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        slots: trials at a time; None fills the machine.
        cpus_per_trial: cores, and threads, of one trial.
        gpus_per_trial: share of a GPU that one trial takes; None is a whole one on ``cuda``.
        num_gpus: GPUs there are.

    Raises:
        UsageError: if not even one trial fits, or the numbers are not above zero.
    """
    if cpus_per_trial < 1 or (slots is not None and slots < 1):
        raise UsageError(
            f"--slots and --cpus-per-trial must be at least 1, got {slots} and {cpus_per_trial}"
        )
    on_gpu = device.startswith("cuda")
    share = (1.0 if gpus_per_trial is None else gpus_per_trial) if on_gpu else 0.0
    if device.startswith("cuda:"):
        raise UsageError(
            f"a search hands out GPUs itself, got device {device!r}; use --device cuda, and "
            "CUDA_VISIBLE_DEVICES to leave some out"
        )
    if on_gpu and not 0 < share * (slots or 1) <= num_gpus:
        raise UsageError(
            f"{slots or 1} trials at a time with {share:g} GPUs each need more than the {num_gpus} "
            "there are, or none at all; change --slots or --gpus-per-trial"
        )
    if slots is None:
        slots = min(usable_cpus() // cpus_per_trial, _fitting_in_memory())
        if on_gpu:
            slots = min(slots, int(num_gpus / share + 1e-9))
    return Slots(slots=max(1, slots), cpus_per_trial=cpus_per_trial, gpus_per_trial=share)


def usable_cpus() -> int:
    """Return the cores this process may use: its affinity, or a container's quota if smaller."""
    cores = len(os.sched_getaffinity(0))
    quota = _words(_CGROUP / "cpu.max")  # "200000 100000", or "max 100000"
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def _fitting_in_memory() -> int:
    return max(1, (usable_memory() - DRIVER_BYTES) // TRIAL_BYTES)


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
