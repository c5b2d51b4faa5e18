"""What a training takes of its device, measured by the process that trains."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path
from typing import TYPE_CHECKING

from cider_platform.execution.capacity import usable_memory
from cider_platform.layout import now, write_json_atomic
from cider_platform.search.packing import Profile

if TYPE_CHECKING:
    from cider_platform.layout import RunFolder

CONTEXT_BYTES = 600_000_000
"""What a process takes of a GPU beside torch's memory: CUDA's context and its libraries' kernels.

An assumption, on the safe side of what is usual; torch cannot tell it.
"""
_GROWTH = 1.05
"""A later epoch is worth a new profile if it took this much more."""
_SELF = Path("/proc/self")


class Meter:
    """Measures one training at a time; make it before the training begins.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        workers: how many processes like this one train the run together.
    """

    def __init__(self, device: str, workers: int = 1) -> None:
        self._device = device
        self._workers = workers
        self._last = 0
        if self._is_gpu:
            import torch  # noqa: PLC0415 - only where there is a GPU

            if torch.cuda.is_available():  # else the training itself says so in a sentence
                torch.cuda.reset_peak_memory_stats()
        else:
            # The peak of this process, which may have trained another run before.
            with contextlib.suppress(OSError):
                (_SELF / "clear_refs").write_text("5", encoding="ascii")

    @property
    def _is_gpu(self) -> bool:
        return self._device.startswith("cuda")

    def profile(self, shape: str, epoch: int, seconds: float) -> Profile | None:
        """Return what the training has taken so far, or None if that is no news.

        Args:
            shape: of the run's spec.
            epoch: the one that has ended.
            seconds: that it took.
        """
        peak, held, free = self._gpu() if self._is_gpu else _host()
        if peak <= self._last * _GROWTH:
            return None
        self._last = peak
        return Profile(
            shape=shape,
            peak_bytes=peak * (1 if self._is_gpu else self._workers),
            available_bytes=free + held * (1 if self._is_gpu else self._workers),
            seconds_per_epoch=round(seconds, 3),
            epoch=epoch,
            device="cuda" if self._is_gpu else "cpu",
        )

    def _gpu(self) -> tuple[int, int, int]:
        """Return what this process took at most and holds now of its GPU, and what is free."""
        import torch  # noqa: PLC0415 - only where there is a GPU

        free, _ = torch.cuda.mem_get_info()
        held = torch.cuda.memory_reserved() + CONTEXT_BYTES
        return torch.cuda.max_memory_reserved() + CONTEXT_BYTES, held, free


def _host() -> tuple[int, int, int]:
    """Return what this process took at most and holds now of main memory, and what is free.

    Files that are mapped, the corpus among them, are shared by all trials and do not count.
    """
    lines = (_SELF / "status").read_text(encoding="ascii", errors="replace").splitlines()
    kilobytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if name in ("VmHWM", "VmRSS", "RssFile", "RssShmem")
    }
    shared = kilobytes.get("RssFile", 0) + kilobytes.get("RssShmem", 0)
    peak = max(1, kilobytes["VmHWM"] - shared)
    held = max(0, kilobytes["VmRSS"] - shared)
    return peak * 1024, held * 1024, usable_memory()


def write_profile(folder: RunFolder, profile: Profile) -> None:
    """Write a run's profile beside its other files, whole."""
    write_json_atomic(folder.profile, {"schema": 1, "time": now(), **profile.to_dict()})


def give_back(device: str) -> None:
    """Let go of what a training that has ended held; the process may train another run."""
    gc.collect()
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415 - only where there is a GPU

        torch.cuda.empty_cache()
