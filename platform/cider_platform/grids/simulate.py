"""How long a grid would take on a cluster: its scheduler, played through with drawn durations.

A discrete-event simulation of what the executor and Ray do: an item starts when what it depends on
has ended, a node has room for it and fewer than the most items run; among those that could start
the first of the list does. Nothing sleeps and nothing is trained, so a thousand GPUs cost seconds.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cider.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

GRAIN = 10_000
"""Parts into which Ray divides a CPU or a GPU."""

_FEWEST_DRAWS, _MOST_DRAWS, _ITEMS_IN_ALL = 20, 200, 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One item: what runs in one slot without a break."""

    id: str
    kind: str
    """What it does, e.g. ``train``; forecasts are told apart by it."""
    seconds: tuple[float, ...]
    """How long it may take; every value is equally likely."""
    cpus: float = 1.0
    gpus: float = 0.0
    """A share below 1 of one GPU, or a whole number of GPUs of one node."""
    after: tuple[str, ...] = ()
    """Ids of the items that must have ended before."""
    pool: str = ""
    """Items of one pool take over each other's worker processes; others start their own. One that
    holds neither CPU nor GPU needs no process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine of a cluster."""

    cpus: float
    gpus: int = 0
    joins_after: float = 0.0
    """Seconds until it can take work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a grid runs on."""

    nodes: tuple[Node, ...]
    slots: int | None = None
    """Most items at a time; None is no limit but the resources."""
    start_seconds: float = 0.0
    """Until the first item can start, once."""
    cold_seconds: float = 0.0
    """Added to an item for which a worker process has to be started."""
    warm_seconds: float = 0.0
    """Added to an item that a worker process takes after another one."""

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One play of a grid."""

    wall_seconds: float
    """From the command to the end of the last item."""
    cpu_seconds: float
    """Seconds that CPUs were held, summed over CPUs; ``gpu_seconds`` likewise."""
    gpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What many plays of a grid with drawn durations came to."""

    draws: int
    wall_p50_seconds: float
    wall_p90_seconds: float
    cpu_hours_p50: float
    cpu_hours_p90: float
    gpu_hours_p50: float
    gpu_hours_p90: float
    """GPU-hours that items hold, p90 over draws."""
    utilisation: float
    """Share of the cluster's GPUs (of its CPUs, if it has none) that is held, in [0, 1]; mean."""


class Simulation:
    """A grid on a cluster, ready to be played any number of times.

    Args:
        work: the items, in the order in which they are to start.
        cluster: what they run on.

    Raises:
        UsageError: if an item fits on no node, however empty.
        ValueError: if ids are not unique, a dependency is unknown, or dependencies are circular.
    """

    def __init__(self, work: Sequence[Work], cluster: Cluster) -> None:
        self.work = tuple(work)
        self.cluster = cluster
        if cluster.slots is not None and cluster.slots < 1:
            raise UsageError(f"slots must be at least 1, got {cluster.slots}")
        self._followers, self._waits = _dependencies(self.work)
        shapes = sorted({_shape(each) for each in self.work})
        numbers = {shape: number for number, shape in enumerate(shapes)}
        self._shapes = shapes
        self._shape_of = [numbers[_shape(each)] for each in self.work]
        for each in self.work:
            if not any(_Room(node).fits(_shape(each)) for node in cluster.nodes):
                raise UsageError(_too_large(each, cluster))

    def play(self, seconds: Sequence[float]) -> Outcome:
        """Return how it goes when every item takes the seconds given for it, in order."""
        return _Play(self, seconds).run()

    def forecast(self, *, draws: int | None = None, seed: int = 0) -> Forecast:
        """Return medians and 90th percentiles over plays with drawn durations.

        Args:
            draws: plays; None is 200, and fewer (at least 20) for very many items.
            seed: of the durations; the same seed gives the same forecast.
        """
        if draws is None:
            wanted = _ITEMS_IN_ALL // max(1, len(self.work))
            draws = min(_MOST_DRAWS, max(_FEWEST_DRAWS, wanted))
        generator = np.random.default_rng(seed)
        outcomes = [self.play(self._draw(generator)) for _ in range(draws)]
        wall = [each.wall_seconds for each in outcomes]
        cpus = [each.cpu_seconds / 3600 for each in outcomes]
        gpus = [each.gpu_seconds / 3600 for each in outcomes]
        held, there = (gpus, self.cluster.gpus) if self.cluster.gpus else (cpus, self.cluster.cpus)
        return Forecast(
            draws=draws,
            wall_p50_seconds=quantile(wall, 0.5),
            wall_p90_seconds=quantile(wall, 0.9),
            cpu_hours_p50=quantile(cpus, 0.5),
            cpu_hours_p90=quantile(cpus, 0.9),
            gpu_hours_p50=quantile(gpus, 0.5),
            gpu_hours_p90=quantile(gpus, 0.9),
            utilisation=sum(
                hours * 3600 / (there * seconds) if seconds else 0.0
                for hours, seconds in zip(held, wall, strict=True)
            )
            / draws,
        )

    def _draw(self, generator: np.random.Generator) -> list[float]:
        # In one call for all items that share their possible durations: thousands do.
        groups: dict[tuple[float, ...], list[int]] = {}
        for number, each in enumerate(self.work):
            groups.setdefault(each.seconds, []).append(number)
        drawn = np.zeros(len(self.work))
        for values, numbers in groups.items():
            drawn[numbers] = np.asarray(values)[generator.integers(len(values), size=len(numbers))]
        seconds: list[float] = drawn.tolist()
        return seconds


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (in (0, 1]) of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class _Room:
    """What is free on a node, in grains."""

    def __init__(self, node: Node) -> None:
        self.cpus = round(node.cpus * GRAIN)
        self.gpus = [GRAIN] * node.gpus
        self.warm: Counter[tuple[int, str]] = Counter()

    def fits(self, shape: tuple[int, int]) -> bool:
        cpus, gpus = shape
        if cpus > self.cpus:
            return False
        if gpus >= GRAIN:
            return self.gpus.count(GRAIN) * GRAIN >= gpus
        return not gpus or any(free >= gpus for free in self.gpus)

    def take(self, shape: tuple[int, int]) -> list[int]:
        """Hold a shape's resources; return the numbers of the GPUs."""
        cpus, gpus = shape
        self.cpus -= cpus
        if not gpus:
            return []
        if gpus < GRAIN:
            # The fullest that has room, so that whole ones stay whole.
            chosen = min((free, number) for number, free in enumerate(self.gpus) if free >= gpus)[
                1:
            ]
            self.gpus[chosen[0]] -= gpus
            return list(chosen)
        whole = [number for number, free in enumerate(self.gpus) if free == GRAIN]
        whole = whole[: gpus // GRAIN]
        for number in whole:
            self.gpus[number] = 0
        return whole

    def give_back(self, shape: tuple[int, int], taken: list[int]) -> None:
        cpus, gpus = shape
        self.cpus += cpus
        for number in taken:
            self.gpus[number] += min(gpus, GRAIN)


class _Play:
    """One play: the state of nodes, queues and the clock."""

    def __init__(self, simulation: Simulation, seconds: Sequence[float]) -> None:
        self._cluster = simulation.cluster
        self._work = simulation.work
        self._shapes = simulation._shapes
        self._shape_of = simulation._shape_of
        self._followers = simulation._followers
        self._waits = list(simulation._waits)
        self._seconds = seconds
        self._rooms = [_Room(node) for node in self._cluster.nodes]
        # Per shape: items that could start, and nodes that may have room; both lowest first.
        self._ready: list[list[int]] = [[] for _ in self._shapes]
        self._open: list[list[int]] = [[] for _ in self._shapes]
        self._is_open = [[False] * len(self._rooms) for _ in self._shapes]
        self._running: dict[int, tuple[int, list[int]]] = {}
        self._events: list[tuple[float, int, int]] = []
        self._held = [0.0, 0.0]

    def run(self) -> Outcome:
        for number, joining in enumerate(self._cluster.nodes):
            joins = max(self._cluster.start_seconds, joining.joins_after)
            heapq.heappush(self._events, (joins, -1, number))
        for item, waits in enumerate(self._waits):
            if not waits:
                heapq.heappush(self._ready[self._shape_of[item]], item)
        now = ended = self._cluster.start_seconds if self._shape_of else 0.0
        left = len(self._shape_of)
        while left:
            now = self._events[0][0]
            while self._events and self._events[0][0] == now:
                _, item, node = heapq.heappop(self._events)
                if item >= 0:
                    self._end(item)
                    left -= 1
                    ended = now
                self._reopen(node)
            self._start_what_fits(now)
        return Outcome(ended, self._held[0], self._held[1])

    def _end(self, item: int) -> None:
        node, taken = self._running.pop(item)
        shape = self._shape_of[item]
        room = self._rooms[node]
        room.give_back(self._shapes[shape], taken)
        room.warm[shape, self._work[item].pool] += 1
        for follower in self._followers[item]:
            self._waits[follower] -= 1
            if not self._waits[follower]:
                heapq.heappush(self._ready[self._shape_of[follower]], follower)

    def _reopen(self, node: int) -> None:
        for shape, amounts in enumerate(self._shapes):
            if not self._is_open[shape][node] and self._rooms[node].fits(amounts):
                self._is_open[shape][node] = True
                heapq.heappush(self._open[shape], node)

    def _node_for(self, shape: int) -> int | None:
        """Return the first node with room; those found full are forgotten until they change."""
        nodes = self._open[shape]
        while nodes:
            if self._rooms[nodes[0]].fits(self._shapes[shape]):
                return nodes[0]
            self._is_open[shape][heapq.heappop(nodes)] = False
        return None

    def _start_what_fits(self, now: float) -> None:
        slots = self._cluster.slots
        while slots is None or len(self._running) < slots:
            waiting = sorted((ready[0], shape) for shape, ready in enumerate(self._ready) if ready)
            for item, shape in waiting:
                node = self._node_for(shape)
                if node is not None:
                    heapq.heappop(self._ready[shape])
                    self._start(item, node, now)
                    break
            else:
                return

    def _start(self, item: int, node: int, now: float) -> None:
        shape = self._shape_of[item]
        room = self._rooms[node]
        self._running[item] = node, room.take(self._shapes[shape])
        seconds = self._seconds[item] + self._start_up(item, shape, room)
        for resource, amount in enumerate(self._shapes[shape]):
            self._held[resource] += seconds * amount / GRAIN
        heapq.heappush(self._events, (now + seconds, item, node))

    def _start_up(self, item: int, shape: int, room: _Room) -> float:
        if self._shapes[shape] == (0, 0):
            return 0.0
        worker = shape, self._work[item].pool
        if not room.warm[worker]:
            return self._cluster.cold_seconds
        room.warm[worker] -= 1
        return self._cluster.warm_seconds


def _shape(work: Work) -> tuple[int, int]:
    if work.gpus > 1 and work.gpus != int(work.gpus):
        raise UsageError(f"an item takes a share of one GPU or whole GPUs, got {work.gpus:g}")
    return round(work.cpus * GRAIN), round(work.gpus * GRAIN)


def _dependencies(work: Sequence[Work]) -> tuple[list[list[int]], list[int]]:
    """Return the followers of every item and how many items each waits for."""
    position = {each.id: number for number, each in enumerate(work)}
    if len(position) < len(work):
        twice = next(a for a, b in pairwise(sorted(each.id for each in work)) if a == b)
        raise ValueError(f"an item's id must be unique, got {twice!r} twice")
    followers: list[list[int]] = [[] for _ in work]
    waits = [0] * len(work)
    for number, each in enumerate(work):
        for name in dict.fromkeys(each.after):
            if name not in position:
                raise ValueError(f"{each.id!r} comes after {name!r}, which is no item")
            followers[position[name]].append(number)
            waits[number] += 1
    _refuse_circles(work, followers, waits)
    return followers, waits


def _refuse_circles(work: Sequence[Work], followers: list[list[int]], waits: Sequence[int]) -> None:
    left = list(waits)
    free = [number for number, count in enumerate(left) if not count]
    while free:
        for follower in followers[free.pop()]:
            left[follower] -= 1
            if not left[follower]:
                free.append(follower)
    circular = [work[number].id for number, count in enumerate(left) if count]
    if circular:
        raise ValueError(f"dependencies are circular: {', '.join(circular[:5])}")


def _too_large(work: Work, cluster: Cluster) -> str:
    largest = max(cluster.nodes, key=lambda node: (node.gpus, node.cpus), default=None)
    there = "it has no nodes"
    if largest is not None:
        there = f"its largest node has {largest.cpus:g} CPUs and {largest.gpus} GPUs"
    return (
        f"{work.kind} needs {work.cpus:g} CPUs and {work.gpus:g} GPUs on one node of the cluster, "
        f"but {there}; describe a larger one with --what-if, or ask for less per slot"
    )
