"""How many trials share a device: decided from what the first trial of each shape was seen to need.

A *room* is a trial's share of a device, in (0, 1]; 1 is the whole of it. A device is a GPU, or the
main memory of this machine. Trials whose rooms fit on the devices run at a time, and at most as
many as there are cores for. A trial that runs out of memory gets twice the room, so that fewer
others run beside it, up to a whole device. Nothing here touches a device or Ray, and nothing of it
changes what a trial computes.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cider.config import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cider.spec import RunSpec

MARGIN = 0.1
"""Share of a device's memory that is kept free: allocators fragment, batches differ in length."""
_GRAIN = 10_000
"""Rooms are multiples of 1/10,000, the smallest share of a GPU that Ray knows."""
_FREE = (
    "seed",
    "optimizer.lr",
    "optimizer.text_lr",
    "training.epochs",
    "training.patience",
    "selection.metric",
)
"""Fields of a spec that cannot change how much memory its training takes."""
_SWITCHES = ("loss.", "optimizer.text_weight_decay", "optimizer.weight_decay")
"""Beginnings of fields, beside dropouts, of which only matters whether they are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the training of one shape was seen to take."""

    shape: str
    """See ``shape_key``."""
    peak_bytes: int
    """Most memory that all workers of the trial held of the device; above 0."""
    available_bytes: int
    """What the device had for trials then: its free memory and what this trial held itself."""
    seconds_per_epoch: float
    epoch: int
    """The epoch it was taken after."""
    device: str
    """``cpu`` or ``cuda``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return asdict(self)


def shape_key(spec: RunSpec) -> str:
    """Return 12 hexadecimal digits that name all specs whose trainings take the same memory.

    What is not known to leave memory as it is belongs to the shape. Of dropouts, weight decays and
    the weights of loss terms only counts whether they are 0: that leaves something out.
    """
    kept: dict[str, object] = {}
    for path, value in _leaves(spec.to_dict()):
        if path in _FREE:
            continue
        is_switch = path.endswith("dropout") or path.startswith(_SWITCHES)
        kept[path] = bool(value) if is_switch else value
    return hashlib.sha256(canonical_json(kept).encode()).hexdigest()[:12]


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def trials_per_device(
    peak_bytes: int, available_bytes: int, *, limit: int, margin: float = MARGIN
) -> int:
    """Return how many trials share a device: at least 1, at most ``limit``.

    Args:
        peak_bytes: of one trial, above 0.
        available_bytes: of the device, for trials.
        limit: how many there are cores for, at least 1.
        margin: share of the device's memory to keep free, in [0, 1).
    """
    fitting = int(available_bytes * (1 - margin)) // peak_bytes
    return max(1, min(limit, fitting))


def room_of_one(count: int) -> float:
    """Return the room of each of ``count`` trials that share a device; rounded down."""
    return max(1, _GRAIN // count) / _GRAIN


def more_room(room: float) -> float | None:
    """Return the next larger room of a trial that ran out of memory; None above a whole device."""
    return None if room >= 1 else min(1.0, 2 * room)


@dataclass(slots=True)
class _Running:
    shape: str
    room: float
    is_probe: bool
    """True if it was the first one, with a whole device to itself."""


class Packing:
    """Which trials may run at a time, and with how much room.

    Args:
        limit: most trials at a time, at least 1.
        devices: how many devices there are; rooms are shares of them.
        room: each trial's room; None is decided by profiles, and the first trial has a whole
            device until there is one.
        on_gpu: True if the devices are GPUs: Ray hands a share out when a worker starts, so a
            running trial cannot be given another room.
        known: most bytes that a trial of each shape was seen to hold.
        available_bytes: of each device, if that is known before a profile is.
        listener: told the profile that decided something, and the number of trials per device.
    """

    def __init__(
        self,
        *,
        limit: int,
        devices: int = 1,
        room: float | None = None,
        on_gpu: bool = False,
        known: Mapping[str, int] | None = None,
        available_bytes: int | None = None,
        listener: Callable[[Profile, int], None] = lambda _profile, _count: None,
    ) -> None:
        self.limit = limit
        self._devices = devices
        self._room = room
        self._on_gpu = on_gpu
        self._peaks = dict(known or {})
        self._available = available_bytes
        self._listener = listener
        self._least: dict[str, float] = {}
        """Room that trials of a shape must have, because one ran out of memory with less."""
        self._running: dict[int, _Running] = {}

    def count(self, shape: str) -> int | None:
        """Return how many trials like those of a shape share a device; None without a profile.

        A shape that has not been seen is taken to need what the largest one does.
        """
        if not self._peaks or self._available is None:
            return None
        peak = self._peaks.get(shape, max(self._peaks.values()))
        per_device = -(-self.limit // self._devices)
        return trials_per_device(peak, self._available, limit=per_device)

    def room_of(self, shape: str) -> float:
        """Return the room that a trial of a shape would get now."""
        room = self._room
        if room is None:
            count = self.count(shape)
            room = 1.0 if count is None else room_of_one(count)
        return max(room, self._least.get(shape, 0.0))

    @property
    def has_place(self) -> bool:
        """Return whether a trial of the smallest room known could begin."""
        rooms = [self.room_of(shape) for shape in self._peaks] or [self._room or 1.0]
        return self._fits(min(rooms))

    def _fits(self, room: float) -> bool:
        taken = sum(each.room for each in self._running.values())
        return len(self._running) < self.limit and taken + room <= self._devices + 0.5 / _GRAIN

    def begin(self, number: int, shape: str) -> bool:
        """Give a trial its room; return False if there is not enough, and it must wait."""
        room = self.room_of(shape)
        # A room larger than all devices has waited for the others, and gets what there is.
        if self._running and not self._fits(room):
            return False
        is_probe = self._room is None and self.count(shape) is None
        self._running[number] = _Running(shape, room, is_probe)
        return True

    def room(self, number: int) -> float:
        """Return the room that a running trial has."""
        return self._running[number].room

    def gpus(self, number: int) -> float:
        """Return the share of GPUs that a running trial holds: its room, if devices are GPUs."""
        return self.room(number) if self._on_gpu else 0.0

    def end(self, number: int) -> None:
        """Take a trial's room back."""
        del self._running[number]

    def ran_out(self, number: int) -> float | None:
        """Return the room that a running trial that ran out of memory is to have next.

        None: it has a whole device, so there is no more. Later trials of its shape begin with the
        larger room too.
        """
        running = self._running[number]
        more = more_room(running.room)
        least = 1.0 if more is None else more
        self._least[running.shape] = max(self._least.get(running.shape, 0.0), least)
        return more

    def learn(self, number: int, profile: Profile) -> bool:
        """Take note of what a running trial takes.

        Returns:
            True if it holds much more than it needs and cannot be moved: it is to be stopped after
            this epoch and begun again.
        """
        running = self._running[number]
        self._peaks[profile.shape] = max(self._peaks.get(profile.shape, 0), profile.peak_bytes)
        # Beside others it cannot tell what is theirs and what is free.
        if self._available is None or running.is_probe:
            self._available = profile.available_bytes
        if self._room is not None:
            return False
        room, count = self.room_of(running.shape), self.count(running.shape)
        assert count is not None, "there is a profile now"
        self._listener(profile, count)
        if not self._on_gpu:
            running.room = room
            return False
        return running.is_probe and room < running.room
