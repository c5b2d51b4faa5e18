"""Checks of a Slurm batch script that starts Ray on the nodes of one allocation."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from cider_platform.cluster import findings
from cider_platform.cluster.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPTION = re.compile(r"^#SBATCH\s+(?:--(?P<long>[\w-]+)|-(?P<short>\w))(?:[=\s]+(?P<value>\S+))?")
_SHORT = {
    "N": "nodes",
    "t": "time",
    "G": "gpus",
    "c": "cpus-per-task",
    "o": "output",
    "n": "ntasks",
}
_GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-task")


def is_script(text: str) -> bool:
    """Return whether a text is a batch script."""
    return text.startswith("#!") and "#SBATCH" in text


def options(text: str) -> dict[str, str]:
    """Return the batch options of a script by their long names."""
    found = (_OPTION.match(line) for line in text.splitlines())
    return {
        match["long"] or _SHORT.get(match["short"], match["short"]): match["value"] or ""
        for match in found
        if match
    }


def check(text: str, *, locked: str) -> list[Finding]:
    """Return what is wrong in a batch script.

    Args:
        text: the script.
        locked: the version of Ray that every node must have.
    """
    # Comments explain the very things that the rules look for.
    commands = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [
        *_syntax(text),
        *_options(options(text)),
        *findings.ray_versions([("the script", commands)], locked),
        *findings.unpinned([("the script", commands)]),
        *findings.tokens_on(
            commands, has_token="RAY_AUTH_TOKEN_PATH" in commands, where="the script"
        ),
        *findings.storage(commands),
    ]


def _syntax(text: str) -> Iterator[Finding]:
    shell = shutil.which("bash")
    if shell is None:
        yield Finding(
            "schema",
            "the script",
            "bash is not installed here, so the script's syntax was not checked; check it with "
            "bash -n where it is",
            "warning",
        )
        return
    done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        line = done.stderr.strip().splitlines()[0].removeprefix(f"{shell}: ")
        yield Finding("schema", "the script", f"bash cannot read the script: {line}; correct it")
    if not re.search(r"^set -[a-z]*e", text, re.MULTILINE):
        yield Finding(
            "schema",
            "the script",
            "the script goes on after a command fails, and the allocation is paid for nothing; "
            "begin it with set -euo pipefail",
        )


def _options(named: dict[str, str]) -> Iterator[Finding]:
    if not named.get("nodes"):
        yield Finding(
            "max-workers",
            "#SBATCH --nodes",
            "no #SBATCH --nodes says how many nodes you will pay for; add it",
        )
    if not named.get("time"):
        yield Finding(
            "idle-timeout",
            "#SBATCH --time",
            "no #SBATCH --time ends the allocation, so it lasts as long as the partition allows; "
            "add it",
        )
    if not any(named.get(name) for name in _GPU_OPTIONS):
        yield Finding(
            "gpu",
            "#SBATCH --gpus-per-node",
            "no #SBATCH option asks for a GPU; add --gpus-per-node or --gres=gpu:N",
        )
