"""Ask every node of a Ray cluster about itself, each by an actor that is pinned to it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cider.errors import CiderError
from cider_platform import tokens
from cider_platform.cluster.diagnosis import Expected
from cider_platform.cluster.probe import Probe, Question

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS = 120.0
_CLOCK_LOOKS = 3
_DASHBOARD_SECONDS = 30.0
_PAGE = "/api/version"


def ask_here(question: Question) -> tuple[list[dict[str, Any]], Expected]:
    """Ask this machine alone, without Ray."""
    probe = Probe(asdict(question))
    wrote = probe.write("here")
    facts = {**probe.facts(), "name": "here", "wrote": wrote, "seen": probe.look()}
    probe.tidy()
    return [facts], Expected(is_cluster=False)


def ask_cluster(
    question: Question, address: str, *, num_nodes: int | None, wait_seconds: float
) -> tuple[list[dict[str, Any]], Expected]:
    """Ask every node of the cluster that this process can join.

    Args:
        question: what each is asked.
        address: of the head, ``HOST:PORT`` or ``auto``; this machine must be one of the nodes.
        num_nodes: nodes to wait for; None takes those that are there.
        wait_seconds: how long to wait for them.

    Raises:
        CiderError: if there is no such cluster, or it refuses the token.
    """
    with _joined(address) as ray:
        nodes = _wait(ray, num_nodes or 1, wait_seconds)
        probes = {name: _pin(ray, node, question) for name, node in nodes.items()}
        facts = _gather(ray, {name: each.facts.remote() for name, each in probes.items()})
        alive = {name: each for name, each in probes.items() if "fault" not in facts[name]}
        for name, each in _gather(ray, {n: p.write.remote(n) for n, p in alive.items()}).items():
            facts[name]["wrote"] = each
        for name, each in _gather(ray, {n: p.look.remote() for n, p in alive.items()}).items():
            facts[name]["seen"] = each
        knocks = _knock(ray, alive)
        for name, probe in alive.items():
            facts[name] |= _clock(ray, probe)
            facts[name]["ray_gpus"] = nodes[name]["Resources"].get("GPU", 0.0)
        _gather(ray, {name: each.tidy.remote() for name, each in alive.items()})
        asked = Expected(nodes=num_nodes, dashboard=knocks)
        return [{"name": name, **each} for name, each in facts.items()], asked


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    """Yield Ray while this process is in the cluster."""
    if address != "auto":
        os.environ.update(tokens.client_environment(address))
    elif tokens.find_token() is not None:
        os.environ.setdefault(tokens.MODE_VARIABLE, "token")
    import ray  # noqa: PLC0415 - reads its authentication when it is imported

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # What is not in a node's cache is missing there: nothing is downloaded to find out.
            runtime_env={"env_vars": {"HF_HUB_OFFLINE": "1"}},
        )
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        reason = tokens.mask(str(error).strip().splitlines()[0])
        raise CiderError(
            f"no Ray cluster at {address}: {reason}; start it (ray up cluster.yaml), or give the "
            "head's --address"
        ) from error
    except ray.exceptions.AuthenticationError as error:
        raise CiderError(
            f"the cluster at {address} refuses the token; copy the cluster's own into "
            "~/.ray/auth_token (mode 600)"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _wait(ray: Any, number: int, seconds: float) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    until = time.monotonic() + seconds
    while True:
        alive = [each for each in ray.nodes() if each["Alive"]]
        if len(alive) >= number or time.monotonic() > until:
            break
        time.sleep(0.5)
    # Two nodes on one machine are told apart by their ids.
    named = {}
    for each in sorted(alive, key=lambda node: ("node:__internal_head__" not in node["Resources"],
                                                 node["NodeManagerAddress"])):  # fmt: skip
        name = each["NodeManagerAddress"]
        named[name if name not in named else f"{name}-{each['NodeID'][:6]}"] = each
    return named


def _pin(ray: Any, node: dict[str, Any], question: Question) -> Any:  # noqa: ANN401
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    pinned = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    remote = ray.remote(num_cpus=0)(Probe)
    return remote.options(scheduling_strategy=pinned).remote(asdict(question))


def _gather(ray: Any, answers: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return what each node said; ``{"fault": ...}`` in place of one that did not answer."""
    until = time.monotonic() + ANSWER_SECONDS
    found: dict[str, Any] = {}
    for name, each in answers.items():
        try:
            found[name] = ray.get(each, timeout=max(0.1, until - time.monotonic()))
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            found[name] = {"fault": tokens.mask(lines[-1].strip())}
    return found


def _knock(ray: Any, probes: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return the dashboard's answer to each node without a token; the head's comes first.

    It begins to listen some seconds after the head has started, so the head asks for a while.
    """
    from ray._private.services import get_webui_url_from_internal_kv  # noqa: PLC0415

    url = get_webui_url_from_internal_kv()  # type: ignore[no-untyped-call]
    if not url or not probes:
        return {}
    page = f"http://{url}{_PAGE}"
    head = next(iter(probes.values()))
    until = time.monotonic() + _DASHBOARD_SECONDS
    while ray.get(head.knock.remote(page)) == 0 and time.monotonic() < until:
        time.sleep(0.5)
    return _gather(ray, {name: each.knock.remote(page) for name, each in probes.items()})


def _clock(ray: Any, probe: Any) -> dict[str, float]:  # noqa: ANN401
    """Return how far a node's clock is from ours, from the quickest of a few looks."""
    looks = []
    for _ in range(_CLOCK_LOOKS):
        before = time.time()
        there = ray.get(probe.clock.remote(), timeout=ANSWER_SECONDS)
        after = time.time()
        looks.append(((after - before) / 2, there - (before + after) / 2))
    error, difference = min(looks)
    return {"clock_seconds": difference, "clock_error": error}


def is_job_server(address: str) -> bool:
    """Return whether an address is a dashboard's, reached from outside the cluster."""
    return urlsplit(address).scheme in ("http", "https")
