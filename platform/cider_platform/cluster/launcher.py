"""Checks of a file for ``ray up``: Ray's own schema first, then what costs money or fails late."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from typing import TYPE_CHECKING, Any

from cider_platform.cluster import findings
from cider_platform.cluster.findings import LONGEST_IDLE_MINUTES, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
# AWS families with NVIDIA GPUs, Google's accelerator machines and Azure's N series.
_GPU_MACHINE = re.compile(r"(?i)^(?:(?:p[2-9]|g[3-9]|gr6)\w*\.|a[2-9]-|g2-|Standard_N[CDV])")


def prepare(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with Ray's defaults, after Ray's own validation.

    Raises:
        ValueError: with Ray's words if Ray refuses it.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config  # noqa: PLC0415

    logging.getLogger("ray").setLevel(logging.ERROR)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            full: dict[str, Any] = prepare_config(values)
            validate_config(full)
    except Exception as error:  # what it is differs from rule to rule, click's own among them
        where = ".".join(str(part) for part in getattr(error, "absolute_path", ()))
        told = getattr(error, "message", "") or str(error) or said.getvalue()
        lines = told.strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{where}: {lines[0]}" if where else lines[0]) from error
    return full


def check(values: dict[str, Any], *, locked: str) -> list[Finding]:
    """Return what is wrong in a cluster launcher file.

    Args:
        values: the parsed file.
        locked: the version of Ray that every node must have.
    """
    try:
        prepare(values)
    except ValueError as error:
        return [
            Finding(
                "schema",
                "the file",
                f"Ray refuses the file: {error}; correct it as Ray's cluster YAML reference says",
            )
        ]
    commands = dict(_commands(values))
    text = "\n".join(commands.values())
    images = dict(_images(values))
    is_cloud = values["provider"]["type"] != "local"
    found = [
        *findings.ray_versions([*commands.items(), *images.items()], locked),
        *findings.unpinned(commands.items()),
        *_token(values, text),
        *_ports(values),
        *findings.storage(text, mounted=findings.shared_folders(text) if is_cloud else None),
    ]
    if is_cloud:
        found += [*_workers(values), *_idle(values), *_installs(text, images)]
    return found


def _commands(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in COMMANDS:
        if lines := values.get(name):
            yield name, "\n".join(lines)
    for kind, node in (values.get("available_node_types") or {}).items():
        for name in ("initialization_commands", "worker_setup_commands"):
            if lines := node.get(name):
                yield f"{kind}.{name}", "\n".join(lines)


def _images(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    docker = values.get("docker") or {}
    for name in ("image", "head_image", "worker_image"):
        if docker.get(name):
            yield f"docker.{name}", docker[name]


def _token(values: Mapping[str, Any], text: str) -> Iterator[Finding]:
    mounted = any(path.endswith("auth_token") for path in values.get("file_mounts") or {})
    yield from findings.tokens_on(
        text, has_token=mounted or "RAY_AUTH_TOKEN_PATH" in text, where="the file's commands"
    )


def _ports(values: Mapping[str, Any]) -> Iterator[Finding]:
    provider = values["provider"]
    for rule in (provider.get("security_group") or {}).get("IpPermissions") or ():
        ranges = [each.get("CidrIp") for each in rule.get("IpRanges") or ()]
        ranges += [each.get("CidrIpv6") for each in rule.get("Ipv6Ranges") or ()]
        for open_range in {"0.0.0.0/0", "::/0"} & set(ranges):
            yield Finding(
                "port",
                "provider.security_group",
                f"provider.security_group opens ports {rule.get('FromPort')} to "
                f"{rule.get('ToPort')} to {open_range}, which is everybody; name your own "
                "addresses, or take the rule out and use ssh",
            )
    nodes = (values.get("available_node_types") or {}).values()
    own = nodes and all("SecurityGroupIds" in (node.get("node_config") or {}) for node in nodes)
    if provider["type"] == "aws" and not own:
        name = (provider.get("security_group") or {}).get("GroupName")
        yield Finding(
            "port",
            "provider.security_group",
            "Ray opens ssh (port 22) to 0.0.0.0/0 in a security group that it makes; make the "
            f"group {name or 'yourself'} beforehand with your own address "
            "(docs/cluster.md), and Ray leaves it as it is",
            "warning",
        )


def _workers(values: Mapping[str, Any]) -> Iterator[Finding]:
    head = values.get("head_node_type")
    nodes = values.get("available_node_types") or {}
    if "max_workers" not in values:
        yield Finding(
            "max-workers",
            "max_workers",
            "max_workers is missing, so Ray's default of 2 holds for all types together; say how "
            "many workers you will pay for",
        )
    workers = {name: node for name, node in nodes.items() if name != head}
    for name, node in workers.items():
        if "max_workers" not in node:
            yield Finding(
                "max-workers",
                f"{name}.max_workers",
                f"worker type {name} has no max_workers, so it grows to the whole cluster's limit; "
                "say how many of it you will pay for",
            )
        if node.get("min_workers"):
            yield Finding(
                "cost",
                f"{name}.min_workers",
                f"worker type {name} keeps {node['min_workers']} machines also when there is "
                "nothing to do; set min_workers: 0",
                "warning",
            )
        if not _is_spot(values, node):
            yield Finding(
                "cost",
                f"{name}.node_config",
                f"worker type {name} is not spot, which costs two to three times as much; runs "
                "continue from their checkpoints, so spot machines will do",
                "warning",
            )
    if not any(_has_gpu(node) for node in workers.values()):
        yield Finding(
            "gpu",
            "available_node_types",
            f"no worker type has a GPU ({', '.join(workers) or 'there is none'}); use an instance "
            "type with one, or resources: {GPU: N} if Ray does not know the type",
        )
    if head in nodes and _has_gpu(nodes[head]):
        yield Finding(
            "gpu",
            f"{head}.node_config",
            f"the head {head} has a GPU, which is paid for all the time and trains nothing; use an "
            "instance type without one",
        )


def _has_gpu(node: Mapping[str, Any]) -> bool:
    config = node.get("node_config") or {}
    machine = config.get("InstanceType") or config.get("machineType") or ""
    machine = machine or (config.get("azure_arm_parameters") or {}).get("vmSize") or ""
    accelerators = config.get("guestAccelerators") or ()
    number = (node.get("resources") or {}).get("GPU")
    return bool(number or accelerators or _GPU_MACHINE.match(str(machine)))


def _is_spot(values: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    if values["provider"]["type"] != "aws":
        return "preempt" in str(node).lower() or "spot" in str(node).lower()
    options = (node.get("node_config") or {}).get("InstanceMarketOptions") or {}
    return bool(options.get("MarketType") == "spot")


def _idle(values: Mapping[str, Any]) -> Iterator[Finding]:
    minutes = values.get("idle_timeout_minutes")
    if minutes is None or not 0 < minutes <= LONGEST_IDLE_MINUTES:
        yield Finding(
            "idle-timeout",
            "idle_timeout_minutes",
            f"idle_timeout_minutes is {'missing' if minutes is None else minutes}; set it above 0 "
            f"and to at most {LONGEST_IDLE_MINUTES}, so that idle workers are given back",
        )
    if values["provider"]["type"] == "aws" and values["provider"].get("cache_stopped_nodes", True):
        yield Finding(
            "cost",
            "provider.cache_stopped_nodes",
            "machines are stopped and not terminated, and their disks are paid for until somebody "
            "deletes them; set provider.cache_stopped_nodes: false",
            "warning",
        )


def _installs(text: str, images: Mapping[str, str]) -> Iterator[Finding]:
    if not images and not re.search(r"install\b[^\n]*cider", text):
        yield Finding(
            "unpinned",
            "setup_commands",
            "no command installs cider-platform, so workers would fail with the first trial; add "
            "pip install --constraint constraints.txt and the mounted checkout",
        )
