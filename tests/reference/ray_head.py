"""A Ray head with a job server on this machine, as ``ray start`` starts one, for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import cider_platform
from cider_platform.execution import processes

RAY = Path(sys.executable).with_name("ray")
ROOTS = [str(Path(cider_platform.__file__).parents[levels]) for levels in (1, 2)]


@dataclass(frozen=True)
class Head:
    """A head that runs."""

    port: int
    folder: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_ports(count):
    """Return ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.contextmanager
def ray_head(*, cpus=2, token=None, environment=None):
    """Start a head and its job server; end them, and whatever they started, after.

    Args:
        cpus: CPUs it hands out.
        token: what its ports ask for; None asks for nothing.
        environment: further variables of the head, which jobs inherit.
    """
    folder = Path(tempfile.mkdtemp(prefix="cider-", dir="/tmp"))
    gcs, dashboard, agent, client = free_ports(4)
    variables = {
        **os.environ,
        # The jobs say `python`, as on any cluster.
        "PATH": os.pathsep.join([str(RAY.parent), os.environ["PATH"]]),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token" if token else "disabled",
        **(environment or {}),
    }
    # The code comes with the submission, not from here.
    variables.pop("PYTHONPATH", None)
    variables.pop("RAY_AUTH_TOKEN_PATH", None)
    variables.pop("RAY_ADDRESS", None)
    if token:
        variables["RAY_AUTH_TOKEN"] = token
    command = [
        *(RAY, "start", "--head", "--block", "--disable-usage-stats"),
        *("--port", gcs, "--dashboard-port", dashboard, "--dashboard-host", "127.0.0.1"),
        *("--dashboard-agent-listen-port", agent, "--ray-client-server-port", client),
        *("--node-ip-address", "127.0.0.1", "--num-cpus", cpus),
        *("--min-worker-port", 20000, "--max-worker-port", 21999),
        *("--object-store-memory", 100_000_000, "--temp-dir", folder / "r"),
    ]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(list(map(str, command)), env=variables, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(head, dashboard, folder / "head.log")
        yield Head(dashboard, folder)
    finally:
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(20)
        processes.end_all_of(folder)
        if head.poll() is None:
            head.kill()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(head, port, log):
    limit = time.monotonic() + 90
    while time.monotonic() < limit:
        assert head.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers, and asks for a token
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"the head does not answer: {log.read_text()}")
