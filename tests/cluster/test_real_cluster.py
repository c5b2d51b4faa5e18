"""A real cluster: three hosts in network namespaces, started by ``ray up`` with the template.

The on-premises template is used as it is but for two lines: packages are not installed again on
every host (they share this machine's, and import the checkout that rsync brought), and Ray gets
less memory and patience. Everything else is the real thing: ssh, rsync, tokens, the autoscaler.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import fake_hosts
import pytest
import small_grid
import yaml

from cider_platform.cluster.files import check_file
from cider_platform.grids.table import result_rows
from cider_platform.layout import RunFolder, read_json
from cider_platform.results import all_runs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(fake_hosts.missing()), reason=fake_hosts.missing() or "-"),
]

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "platform" / "clusters" / "on-premises.yaml"
SEEDS = 6
EPOCHS = 40
JOB = f"""
[axes]
dataset = ["tiny"]
missing = ["rmfm"]
seed = "0:{SEEDS}"
"""


class Cluster:
    """A running cluster, and how to reach it from outside."""

    def __init__(self, hosts, folder, token, environment):
        self.hosts = hosts
        self.place = small_grid.Place(folder / "shared", epochs=EPOCHS)
        self.token = token
        self.environment = environment
        self.address = ""

    def request(self, path, *, token=None, data=None):
        """Return status and body of a page of the dashboard."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = None if data is None else json.dumps(data).encode()
        headers |= {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def alive(self):
        """Return the addresses of the nodes that Ray holds for alive."""
        _, body = self.request("/nodes?view=summary", token=self.token)
        summaries = json.loads(body)["data"]["summary"]
        return {each["ip"] for each in summaries if each["raylet"].get("state") == "ALIVE"}

    def complete(self):
        """Return the ids of the runs that are complete."""
        return {run.run_id for run in all_runs(self.place.results) if run.state == "COMPLETE"}

    def cli(self, *words, token=None):
        """Run a command from outside."""
        environment = {
            **self.environment,
            "RAY_AUTH_TOKEN": token or self.token,
            "RAY_API_SERVER_ADDRESS": self.address,
        }
        return command(
            sys.executable, "-m", "cider_platform", *map(str, words),
            environment=environment, seconds=400,
        )  # fmt: skip

    def data(self, *words):
        """Run a command from outside that ends well; return its JSON document's data."""
        done = self.cli(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["data"]

    def doctor(self, *options, token=None):
        """Run ``doctor`` from outside."""
        return self.cli("doctor", "--address", self.address, *options, token=token)


def command(*words, environment, seconds=120, cwd=ROOT):
    return subprocess.run(
        words,
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def wait_for(what, condition, seconds):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s in vain for {what}"
        time.sleep(0.5)


def filled(hosts, shared):
    """Return the template with the hosts' values, and without installing and large memory."""
    head, *workers = hosts.names
    text = TEMPLATE.read_text(encoding="utf-8")
    for old, new in {
        "EDIT_ME_HEAD": hosts.address[head],
        "[EDIT_ME_WORKER_1, EDIT_ME_WORKER_2]": str([hosts.address[name] for name in workers]),
        "EDIT_ME_USER": "root",
        "~/.ssh/id_ed25519": str(hosts.key),
        "/mnt/cider": str(shared),
        # A host that is gone is missed after 12 seconds, not after a minute.
        "ray start": "RAY_health_check_failure_threshold=3 RAY_health_check_timeout_ms=3000 "
        "ray start --num-cpus=2 --object-store-memory=100000000",
    }.items():
        assert old in text
        text = text.replace(old, new)
    values = yaml.safe_load(text)
    commands = values["setup_commands"]
    (install,) = [index for index, line in enumerate(commands) if "pip install" in line]
    folders = ":".join(f"~/cider-platform{each}" for each in ("", "/platform"))
    commands[install] = (
        f"grep -q PYTHONPATH ~/.bashrc || echo 'export OMP_NUM_THREADS=1 PYTHONPATH={folders}' >> ~/.bashrc"  # noqa: E501
    )
    return yaml.safe_dump(values, sort_keys=False)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def tunnel(hosts, head):
    """Forward the head's dashboard to this machine, as ``ray dashboard`` does."""
    port = free_port()
    words = hosts.ssh_command(head, "-N", "-L", f"127.0.0.1:{port}:127.0.0.1:8265")
    forward = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        forward.terminate()
        forward.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The cluster, up; it is taken down again, whatever happens."""
    folder = tmp_path_factory.mktemp("cluster")
    token = secrets.token_hex(32)
    home = folder / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(token)
    (home / ".ray" / "auth_token").chmod(0o600)
    (folder / "shared" / "results").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    environment |= {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
        "RAY_AUTH_MODE": "token",
        "RAY_UP_enable_autoscaler_v2": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with fake_hosts.FakeHosts(["head", "one", "two"]) as hosts:
        file = folder / "on-premises.yaml"
        file.write_text(filled(hosts, folder / "shared"))
        found = {each.code for each in check_file(file).findings if each.severity == "error"}
        # The shared folder lies in this machine's folder for temporary files.
        assert found <= {"storage"}
        cluster = Cluster(hosts, folder, token, environment)
        up = command(
            "ray", "up", "-y", str(file), "--no-config-cache", "--disable-usage-stats",
            environment=environment,
        )  # fmt: skip
        assert up.returncode == 0, f"{up.stdout[-4000:]}\n{up.stderr[-2000:]}"
        with tunnel(hosts, "head") as cluster.address:
            wait_for("the dashboard", lambda: reachable(cluster), 30)
            yield cluster
            down = command("ray", "down", "-y", str(file), environment=environment)
            assert down.returncode == 0, down.stdout[-2000:]
            wait_for("the head's end", lambda: not hosts.processes("head", "gcs_server"), 30)


def reachable(cluster):
    try:
        return cluster.request("/api/version", token=cluster.token)[0] == 200
    except OSError:
        return False


def test_cluster_is_sound_by_doctor_from_outside(cluster):
    done = cluster.doctor("--nodes", "3", "--wait", "90", "--dataset", "tiny", "--json")
    assert done.stdout, done.stderr
    data = json.loads(done.stdout)["data"]
    faults = [fault for check in data["checks"] for fault in check["faults"]]
    assert faults == []
    assert done.returncode == 0
    assert {each["name"] for each in data["nodes"]} == set(cluster.hosts.address.values())
    assert {each["host"] for each in data["nodes"]} == {"head", "one", "two"}
    told = {each["check"]: each["told"] for each in data["checks"]}
    # It listens on the head's loopback alone, and there it wants the token.
    assert "answers 1 of 3 nodes, none without it" in told["token"]


def test_token_is_wanted_from_outside(cluster):
    assert cluster.request("/api/version")[0] == 401
    assert cluster.request("/api/version", token="0" * 64)[0] == 403
    code, _ = cluster.request("/api/jobs/", data={"entrypoint": "true"})
    assert code == 401
    done = cluster.doctor(token="0" * 64)
    assert done.returncode == 1
    assert "refuses the token" in done.stderr
    assert "0" * 64 not in done.stderr + done.stdout


def test_dashboard_is_not_reached_without_the_tunnel(cluster):
    with socket.socket() as knock:
        knock.settimeout(5)
        assert knock.connect_ex((cluster.hosts.address["head"], 8265)) != 0


def test_submitted_grid_survives_a_cut_cable_and_a_killed_driver_and_equals_one_machine(
    cluster, tmp_path
):
    hosts, place = cluster.hosts, cluster.place
    where = ("--store", place.store, "--results", place.results)
    words = ("submit", place.write("outside", JOB), "--slots", 3, *where)
    first = cluster.data(*words)
    begun = place.results / "runs"
    wait_for("the first epochs", lambda: len([*begun.glob("*/epochs.jsonl")]) >= 3, 120)

    hosts.cut("one")
    gone = hosts.address["one"]
    wait_for("Ray to miss the host", lambda: gone not in cluster.alive(), 60)
    hosts.restore("one")
    assert cluster.data("jobs", "status", first["job"])["state"] == "RUNNING"

    wait_for("a first run", cluster.complete, 120)
    (driver,) = driver_of(hosts)
    os.kill(driver, signal.SIGKILL)
    wait_for(
        "the driver's end",
        lambda: cluster.data("jobs", "status", first["job"])["state"] == "FAILED",
        60,
    )
    before = cluster.complete()
    assert before

    second = cluster.data(*words, "--wait")
    log = cluster.cli("jobs", "logs", second["job"]).stdout
    assert (second["job"], second["state"]) == (f"{first['grid']}-2", "SUCCEEDED"), log
    grid = place.grid(JOB, "outside")
    runs = {spec.run_id for cell in grid.cells for spec in cell.specs}
    assert len(runs) == SEEDS > len(before)
    assert before < runs == cluster.complete()
    wait_for("the host to be back", lambda: gone in cluster.alive(), 90)

    alone = small_grid.Place(tmp_path, epochs=EPOCHS)
    assert set(alone.run_inline(grid).values()) == {""}
    here, there = result_rows(grid, alone.results), result_rows(grid, place.results)
    assert [row.to_dict() for row in there] == [row.to_dict() for row in here]
    for run in runs:
        ours, theirs = (RunFolder.of(root, run) for root in (alone.results, place.results))
        # The hash of the weights is among what ends a training.
        assert (
            read_json(ours.frozen)["weights_sha256"] == read_json(theirs.frozen)["weights_sha256"]
        )
        assert without_durations(read_json(ours.result)) == without_durations(
            read_json(theirs.result)
        )


def driver_of(hosts):
    """Return the processes that drive a grid, without their shells."""
    found = hosts.processes("head", "cider_platform")
    words = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in found}
    return [pid for pid, line in words.items() if line[1:4] == ["-m", "cider_platform", "run"]]


def without_durations(result):
    return {name: value for name, value in result.items() if not re.search("seconds|frozen", name)}
