"""Judge what the nodes of a cluster say of themselves: one check per question, each a sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cider_platform.corpora import readable_bytes
from cider_platform.execution.capacity import DRIVER_BYTES, LEAST_TRIAL_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LEAST_FREE_BYTES = 5 * 2**30
"""Free disk at the results' root below which a long search fails."""
LEAST_MEMORY_BYTES = DRIVER_BYTES + LEAST_TRIAL_BYTES
MOST_CLOCK_SECONDS = 2.0
"""Difference of clocks from which leases and file times mislead (a lease is stale after 60 s)."""
_OPEN = 200


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer."""

    name: str
    faults: tuple[str, ...]
    """Sentences with what to do; empty if all is well."""
    told: str = ""
    """What was found, if all is well."""

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {"check": self.name, "well": self.is_well, "faults": list(self.faults),
                "told": self.told if self.is_well else ""}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the examination was asked for."""

    nodes: int | None = None
    """Least number of nodes."""
    is_cluster: bool = True
    dashboard: Mapping[str, int] = field(default_factory=dict)
    """HTTP status of the dashboard without a token, by the node that asked; 0: nobody answered."""


Node = dict[str, Any]


def judge(nodes: Sequence[Node], expected: Expected) -> list[Check]:
    """Return every check over the facts of all nodes.

    Args:
        nodes: facts of ``probe.Probe`` with ``name``, and ``fault`` alone for a node that did not
            answer; ``seen`` lists the nodes whose files it sees, ``wrote`` what went wrong,
            ``clock_seconds`` its clock less ours and ``clock_error`` how sure that is.
        expected: what was asked for.
    """
    answered = [each for each in nodes if not each.get("fault")]
    checks = [_answers(nodes, expected)]
    if answered:
        checks += [
            Check("versions", tuple(_versions(answered)), _same(answered)),
            Check("storage", tuple(_storage(answered)), f"{answered[0]['results']['path']}, seen "
                  "by all" if len(answered) > 1 else answered[0]["results"]["path"]),
            Check("features", tuple(_features(answered)), _corpora_told(answered)),
            Check("encoder", tuple(_encoders(answered)), _encoders_told(answered)),
            Check("gpu", tuple(_gpus(answered)), _gpus_told(answered)),
            Check("memory", tuple(_memory(answered)), "enough for the driver and a trial"),
            Check("disk", tuple(_disk(answered)), f"at least {readable_bytes(LEAST_FREE_BYTES)} "
                  "free"),
            Check("token", tuple(_token(answered, expected)), _token_told(answered, expected)),
        ]  # fmt: skip
        if len(answered) > 1:
            checks.append(Check("clock", tuple(_clock(answered)), "within 2 s of each other"))
    return checks


def _answers(nodes: Sequence[Node], expected: Expected) -> Check:
    faults = [
        f"{each['name']} did not answer: {each['fault']}" for each in nodes if each.get("fault")
    ]
    if expected.nodes is not None and len(nodes) < expected.nodes:
        faults.append(
            f"{len(nodes)} of {expected.nodes} nodes are there; look at monitor.log on the head "
            "(ray monitor CLUSTER.yaml), or ask for fewer with --nodes"
        )
    return Check("nodes", tuple(faults), f"{len(nodes)} answered")


def outside_check(nodes: Sequence[Node], here: Mapping[str, str]) -> Check:
    """Return whether a machine outside has what the head has.

    Args:
        nodes: as for ``judge``; the head comes first.
        here: versions of ``python``, ``ray`` and ``code of cider-platform`` on this machine; Python
            may differ, for a job takes the head's.
    """
    faults = []
    head = nodes[0] if nodes and not nodes[0].get("fault") else None
    if head is not None:
        there = {"ray": head["versions"]["ray"], "code of cider-platform": head["code"]}
        faults = [
            f"{what} is {value} on the head and {here[what]} here; install the same on both "
            "(constraints.txt), and ray up again to send this checkout"
            for what, value in there.items()
            if here[what] != value
        ]
    return Check("this machine", tuple(faults), "Ray and the code are the head's")


def _versions(nodes: Sequence[Node]) -> Iterator[str]:
    rows = [{"name": each["name"], "python": each["python"], **each["versions"],
             "code of cider-platform": each["code"]} for each in nodes]  # fmt: skip
    names = dict.fromkeys(key for row in rows for key in row if key != "name")
    for what in names:
        given = {row["name"]: row[what] for row in rows if what in row}
        counted = Counter(given.values()).most_common()
        if len(counted) > 1:
            usual = counted[0][0]
            others = ", ".join(
                f"{name} has {value}" for name, value in given.items() if value != usual
            )
            yield (
                f"{what} is {usual} on most nodes, but {others}; install the locked versions "
                "there (constraints.txt), or start the node anew"
            )


def _same(nodes: Sequence[Node]) -> str:
    first = nodes[0]
    told = ", ".join(f"{name} {first['versions'][name]}" for name in ("ray", "torch"))
    return f"Python {first['python']}, {told}, code {first['code']}"


def _storage(nodes: Sequence[Node]) -> Iterator[str]:
    names = {each["name"] for each in nodes}
    for each in nodes:
        path = each["results"]["path"]
        if each["results"]["fault"] or each["wrote"]:
            yield (
                f"{each['name']} cannot write {path}: {each['results']['fault'] or each['wrote']}; "
                "mount it writable there, or set CIDER_RESULTS"
            )
        elif unseen := sorted(names - set(each["seen"])):
            yield (
                f"{each['name']} does not see at {path} what {', '.join(unseen)} wrote, so their "
                "disks are different ones; mount one folder on all nodes and set CIDER_RESULTS"
            )


def _features(nodes: Sequence[Node]) -> Iterator[str]:
    for corpus in sorted({name for each in nodes for name in each["corpora"]}):
        found = {each["name"]: each["corpora"].get(corpus) for each in nodes}
        for name, values in found.items():
            if values is None or values["fault"]:
                fault = "is not in the store" if values is None else values["fault"]
                yield (
                    f"corpus {corpus} {fault} on {name}; import it into the shared store, or set "
                    "CIDER_STORE there"
                )
        having = [(values, name) for name, values in found.items()]
        hashes = {has["content_sha256"]: name for has, name in having if has and not has["fault"]}
        if len(hashes) > 1:
            told = ", ".join(f"{sha[:12]} on {name}" for sha, name in hashes.items())
            yield f"corpus {corpus} differs: {told}; import it once, into a shared store"


def _corpora_told(nodes: Sequence[Node]) -> str:
    sound = {name: each for name, each in nodes[0]["corpora"].items() if not each["fault"]}
    told = ", ".join(f"{name} {each['content_sha256'][:12]}" for name, each in sound.items())
    return told or "no corpus is stored yet, and none was asked for"


def _encoders(nodes: Sequence[Node]) -> Iterator[str]:
    for each in nodes:
        for values in each["encoders"].values():
            if values["fault"]:
                yield f"{each['name']}: {values['fault']}"
    for encoder in sorted({name for each in nodes for name in each["encoders"]}):
        having = [(each["encoders"].get(encoder), each["name"]) for each in nodes]
        found = {has["sha256"]: name for has, name in having if has and not has["fault"]}
        if len(found) > 1:
            told = ", ".join(f"{sha[:12]} on {name}" for sha, name in found.items())
            yield f"encoder {encoder} is different: {told}; copy one folder to all nodes"


def _encoders_told(nodes: Sequence[Node]) -> str:
    return (
        ", ".join(sorted({name for each in nodes for name in each["encoders"]})) or "none asked for"
    )


def _gpus(nodes: Sequence[Node]) -> Iterator[str]:
    for each in nodes:
        promised, seen = each.get("ray_gpus"), len(each["gpus"])
        if promised is not None and promised > seen:
            yield (
                f"Ray hands out {promised:g} GPUs on {each['name']}, but torch sees {seen}; "
                "install the NVIDIA driver and a CUDA build of torch, or start Ray with --num-gpus "
                f"{seen}"
            )
        elif promised is not None and promised < seen:
            yield (
                f"torch sees {seen} GPUs on {each['name']}, but Ray hands out {promised:g}; start "
                "Ray there without --num-gpus"
            )


def _gpus_told(nodes: Sequence[Node]) -> str:
    counted = Counter(
        f"{gpu['name']} with {readable_bytes(gpu['memory_bytes'])}"
        for each in nodes
        for gpu in each["gpus"]
    )
    return ", ".join(f"{number} x {name}" for name, number in counted.items()) or "none"


def _memory(nodes: Sequence[Node]) -> Iterator[str]:
    for each in nodes:
        if each["memory_bytes"] < LEAST_MEMORY_BYTES:
            yield (
                f"{each['name']} has {readable_bytes(each['memory_bytes'])} of memory free, a "
                f"driver and one trial need {readable_bytes(LEAST_MEMORY_BYTES)}; end what else "
                "runs there, or take a larger machine"
            )


def _disk(nodes: Sequence[Node]) -> Iterator[str]:
    for each in nodes:
        for place in ("results", "store"):
            free = each[place].get("free_bytes")
            if free is not None and free < LEAST_FREE_BYTES:
                yield (
                    f"{each[place]['path']} on {each['name']} has {readable_bytes(free)} free, "
                    f"needed are {readable_bytes(LEAST_FREE_BYTES)}; make room there"
                )


def _token(nodes: Sequence[Node], expected: Expected) -> Iterator[str]:
    for each in nodes:
        if each["token"]["fault"]:
            yield f"{each['name']}: {each['token']['fault']}"
        elif expected.is_cluster and not (
            each["token"]["found"] and each["token"]["mode"] == "token"
        ):
            yield (
                f"{each['name']} runs Ray without a token (RAY_AUTH_MODE is "
                f"{each['token']['mode'] or 'not set'}); set it to token on every node and start "
                "Ray anew"
            )
    for asked_by, status in expected.dashboard.items():
        if status == _OPEN:
            yield (
                f"the dashboard answers {asked_by} without a token, so who reaches it runs anything"
                "; start Ray with RAY_AUTH_MODE=token"
            )
    if expected.is_cluster and not any(expected.dashboard.values()):
        yield (
            "no dashboard answers on the head, and jobs cannot be submitted; start it with "
            "ray[default] installed and without --include-dashboard=false"
        )


def _token_told(nodes: Sequence[Node], expected: Expected) -> str:
    if not expected.is_cluster:
        return "found, private" if nodes[0]["token"]["found"] else "none here, and none needed"
    near = sum(status > 0 for status in expected.dashboard.values())
    return f"on at all nodes; the dashboard answers {near} of {len(nodes)} nodes, none without it"


def _clock(nodes: Sequence[Node]) -> Iterator[str]:
    for each in nodes:
        if abs(each["clock_seconds"]) - each["clock_error"] > MOST_CLOCK_SECONDS:
            yield (
                f"the clock of {each['name']} differs by {each['clock_seconds']:+.1f} s, allowed "
                f"are {MOST_CLOCK_SECONDS:g}; run chrony or ntpd there"
            )
