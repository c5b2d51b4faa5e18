"""``doctor``: examine this machine, or every node of a cluster, before the hours are spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results, Store  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Sequence


def doctor(
    address: Annotated[
        str | None,
        typer.Option(
            help="auto or HOST:PORT on a node of the cluster; http://HOST:PORT of its dashboard "
            "from outside; default: this machine alone, without Ray.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="A corpus that must be on every node; may be given many times; default: every "
            "corpus that is on one.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="Text encoder that must be on every node; default: those the corpora name.",
            show_default=False,
        ),
    ] = "",
    nodes: Annotated[
        int | None,
        typer.Option(min=1, help="Least number of nodes.", show_default=False),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for so many nodes.")] = 60.0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash the corpora's files, not read their manifests.")
    ] = False,
    store: Store = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """Check versions, storage, features, encoder, GPUs, memory, disk, clock and token.

    Exit code 1 says that something is wrong.

    Example: cider-platform doctor --address http://127.0.0.1:8265
    """
    import os
    import secrets

    from cider_platform.cluster.nodes import ask_cluster, ask_here, is_job_server
    from cider_platform.cluster.outside import ask_head
    from cider_platform.cluster.probe import Question

    # What is not in this machine's cache is missing: nothing is downloaded to find out.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folders = {"--store": store, "--results": results}
    if address is not None and is_job_server(address):
        words = [word for each in dataset or () for word in ("--dataset", each)]
        words += [word for flag, path in folders.items() if path for word in (flag, str(path))]
        words += ["--encoder", encoder] if encoder else []
        words += ["--nodes", str(nodes)] if nodes else []
        words += ["--wait", str(wait), *(["--verify"] if verify else [])]
        _tell_of_head(ask_head(address, words), json=json)
        return
    question = Question(
        nonce=f".doctor-{secrets.token_hex(4)}",
        store=None if store is None else str(store.expanduser().absolute()),
        results=None if results is None else str(results.expanduser().absolute()),
        datasets=tuple(dataset or ()),
        encoder=encoder,
        verify=verify,
    )
    if address is None:
        found, expected = ask_here(question)
    else:
        found, expected = ask_cluster(question, address, num_nodes=nodes, wait_seconds=wait)
    from cider_platform.cluster.diagnosis import judge

    _tell({"nodes": found, "checks": [each.to_dict() for each in judge(found, expected)]}, json)


def _tell_of_head(data: dict[str, Any], *, json: bool) -> None:
    """Add to the head's examination what only the outside can know: its own versions."""
    import platform

    from cider_platform.cluster.diagnosis import outside_check
    from cider_platform.cluster.probe import installed_version, source_hash

    here = {"python": platform.python_version(), "ray": installed_version("ray"),
            "code of cider-platform": source_hash()}  # fmt: skip
    checks = [*data["checks"], outside_check(data["nodes"], here).to_dict()]
    _tell({"nodes": data["nodes"], "checks": checks}, json)


def _tell(data: dict[str, Any], json: bool) -> None:
    from cider_platform.output import emit_json, emit_table, fail, say

    faults = sum(len(each["faults"]) for each in data["checks"])
    if json:
        emit_json("doctor", data)
    else:
        emit_table(
            ["node", "host", "cores", "memory", "GPUs", "disk free", "clock"],
            [_row(each) for each in data["nodes"]],
            right=("cores", "memory", "GPUs", "disk free", "clock"),
        )
        emit_table(["check", "", "what was found"], _rows(data["checks"]))
    if faults:
        fail(f"{faults} thing{'s' * (faults > 1)} to put right")
        raise typer.Exit(1)
    say("all is well")


def _row(node: dict[str, Any]) -> list[object]:
    from cider_platform.corpora import readable_bytes

    if node.get("fault"):
        return [node["name"], "does not answer", *[None] * 5]
    free = node["results"].get("free_bytes")
    clock = node.get("clock_seconds")
    return [
        node["name"],
        node["host"],
        node["cpus"],
        readable_bytes(node["memory_bytes"]),
        len(node["gpus"]),
        None if free is None else readable_bytes(free),
        None if clock is None else f"{clock:+.2f} s",
    ]


def _rows(checks: Sequence[dict[str, Any]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for each in checks:
        if each["faults"]:
            rows += [[each["check"], "WRONG", fault] for fault in each["faults"]]
        else:
            rows.append([each["check"], "ok", each["told"]])
    return rows
