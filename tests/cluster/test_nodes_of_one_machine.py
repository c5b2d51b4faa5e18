"""The nearest real thing where there is no root: two Ray nodes beside each other on one machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import tiny_corpus

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")


def free_ports(number):
    """Return free ports, none of which is another's."""
    held = [socket.socket() for _ in range(number)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


@pytest.fixture
def two_nodes(tmp_path):
    """Address of a cluster of two nodes on this machine, and the environment that opens it."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    tiny_corpus.write_tiny_corpus(tmp_path / "store")
    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    environment |= {
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "CIDER_RESULTS": str(tmp_path / "results"),
        "CIDER_STORE": str(tmp_path / "store"),
        "OMP_NUM_THREADS": "1",
    }
    port, dashboard, agent, client, other_agent = free_ports(5)
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--block", "--disable-usage-stats"]
    head = [
        RAY, "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}",
        f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
        "--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}", *common,
    ]  # fmt: skip
    worker = [
        RAY, "start", f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.1",
        f"--dashboard-agent-listen-port={other_agent}", "--min-worker-port=0",
        "--max-worker-port=0", *common,
    ]  # fmt: skip
    started = []
    with (folder / "log").open("wb") as log:
        try:
            for words, ready in ((head, dashboard), (worker, other_agent)):
                started.append(
                    subprocess.Popen(
                        words, env=environment, stdout=log, stderr=log, start_new_session=True
                    )
                )
                answers(ready, started[-1], folder / "log")
            yield f"127.0.0.1:{port}", environment
        finally:
            for each in reversed(started):
                each.send_signal(signal.SIGTERM)
            for each in started:
                try:
                    each.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(each.pid, signal.SIGKILL)
                    each.wait()
            shutil.rmtree(folder, ignore_errors=True)


def answers(port, process, log):
    """Wait until something listens to a port."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise RuntimeError(log.read_text(errors="replace")[-2000:])


def doctor(address, environment, *options):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cider_platform",
            "doctor",
            "--address",
            address,
            *options,
            "--json",
        ],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    data = json.loads(done.stdout)["data"]
    return done.returncode, data, {each["check"]: each["faults"] for each in data["checks"]}


def test_doctor_asks_each_of_two_nodes_and_tells_what_is_missing(two_nodes):
    address, environment = two_nodes
    code, data, faults = doctor(address, environment, "--nodes", "2", "--dataset", "tiny")
    assert len(data["nodes"]) == 2
    assert len({each["name"] for each in data["nodes"]}) == 2
    assert not [fault for each in faults.values() for fault in each], faults
    assert code == 0

    code, _, faults = doctor(
        address, environment, "--nodes", "3", "--wait", "1", "--dataset", "mosei"
    )
    assert code == 1
    assert "2 of 3 nodes are there" in faults["nodes"][0]
    assert len(faults["features"]) == 2
    assert "corpus mosei is not in the store" in faults["features"][0]
