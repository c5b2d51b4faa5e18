"""The packing of a study: made from what its command asks for, told once, and written down.

``packing.json`` in the study's folder has what trials of each shape were seen to take, so that a
search that goes on does not begin with one trial alone again. It decides where and when trials run,
never what they are.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from cider.errors import CiderError
from cider_platform.execution.capacity import DRIVER_BYTES, usable_memory
from cider_platform.layout import read_json, write_json_atomic
from cider_platform.output import say
from cider_platform.search.packing import MARGIN, Packing, Profile

if TYPE_CHECKING:
    from pathlib import Path

    from cider_platform.execution.capacity import Slots

_GIB = 1024**3


def packing_of(slots: Slots, record: Path) -> Packing:
    """Return the packing of a search that begins or goes on.

    Args:
        slots: how many trials at a time at most, and whether profiles decide.
        record: path of ``packing.json``.
    """
    on_gpu = slots.num_gpus > 0
    if not slots.is_auto:
        devices = slots.num_gpus if on_gpu else 1
        room = slots.gpus_per_trial if on_gpu else 1 / slots.slots
        return Packing(limit=slots.slots, devices=devices, room=room, on_gpu=on_gpu)
    shapes = _read(record)
    teller = _Teller(record, shapes, slots)
    if on_gpu:
        # What a GPU has free now only a process that uses it can tell: the first trial does.
        return Packing(limit=slots.slots, devices=slots.num_gpus, on_gpu=True, listener=teller.tell)
    known = {
        shape: int(facts["peak_bytes"])
        for shape, facts in shapes.items()
        if facts["device"] == "cpu"
    }
    return Packing(
        limit=slots.slots,
        known=known,
        available_bytes=max(1, usable_memory() - DRIVER_BYTES) if known else None,
        listener=teller.tell,
    )


def _read(record: Path) -> dict[str, dict[str, Any]]:
    # A record that is damaged, or not there, costs one trial's first epoch alone.
    with contextlib.suppress(FileNotFoundError, CiderError, TypeError, KeyError):
        return dict(read_json(record)["shapes"])
    return {}


class _Teller:
    """Tells the first decision, and writes all of them down."""

    def __init__(self, record: Path, shapes: dict[str, dict[str, Any]], slots: Slots) -> None:
        self._record = record
        self._shapes = shapes
        self._slots = slots
        self._has_told = False

    def tell(self, profile: Profile, count: int) -> None:
        text = decision(profile, count, limit=self._slots.slots, workers=self._slots.workers)
        if not self._has_told:
            say(text)
            self._has_told = True
        facts = {**profile.to_dict(), "trials_per_device": count, "decision": text}
        del facts["shape"]
        self._shapes[profile.shape] = facts
        write_json_atomic(self._record, {"schema": 1, "margin": MARGIN, "shapes": self._shapes})


def decision(profile: Profile, count: int, *, limit: int, workers: int = 1) -> str:
    """Return in one line what a profile led to.

    Args:
        profile: of a trial.
        count: trials per device.
        limit: most trials at a time.
        workers: of each trial.
    """
    peak, available = profile.peak_bytes / _GIB, profile.available_bytes / _GIB
    trials = f"{count} trial{'s' * (count > 1)}"
    where = "at a time" if profile.device == "cpu" else "per GPU"
    reason = f" (cores for {limit})" if count == limit else ""
    of = f" in {workers} workers" if workers > 1 else ""
    return (
        f"a trial{of} takes {peak:.1f} GiB of {available:.1f} GiB and "
        f"{profile.seconds_per_epoch:.1f} s per epoch: {trials} {where}{reason}, "
        f"{100 * MARGIN:.0f} % margin kept"
    )
