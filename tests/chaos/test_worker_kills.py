"""SIGKILL of one of several workers of a training or trial, and of a machine with one of them.

After each of them the run ends with the numbers it has without.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from chaos_driver import Options
from chaos_harness import Campaign, Driver, states_on_disk, undisturbed
from tiny_corpus import write_tiny_corpus

from cider.models.cider.config import Config
from cider.spec import DataConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.layout import RunFolder, read_json
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.trial import read_epochs

pytestmark = pytest.mark.chaos

EPOCHS = 12
SPEC = RunSpec(
    data=DataConfig(dataset="tiny"),
    model=Config(width=8, heads=2, layers=1),
    text_encoder=TextEncoderConfig(width=8, layers=1, source="scratch"),
    training=TrainingConfig(epochs=EPOCHS, batch_size=5, patience=EPOCHS),
)
WORKER_NAMES = ("ray::RayTrainWo", "ray::_Helper")

TRAIN = """
import sys
from pathlib import Path
from cider.spec import RunSpec
from cider_platform.runs.assembly import Runtime
from cider_platform.execution.capacity import Group
from cider_platform.execution.group import train_in_group
from cider_platform.runs.trial import train_run
import json

def say(text):
    print(text, file=sys.stderr, flush=True)

spec = RunSpec.from_dict(json.loads(sys.argv[1]))
store, results, every = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
runtime = Runtime(store, results, threads=1, checkpoint_every=every)
train_in_group(
    spec, runtime, Group(least=2, most=2, cpus=1), train=train_run,
    listener=lambda result: say(f"epoch {result.epoch}"), notice=say,
)
"""


class Training(Driver):
    """A training by two workers in a process of its own."""

    def __init__(self, place, spec, results, checkpoint_every):
        self.place = place
        self.started = time.monotonic()
        self.errors = place.root / f"stderr-{time.monotonic_ns()}"
        arguments = [json.dumps(spec.to_dict()), place.root / "store", results, checkpoint_every]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TRAIN, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(place),
            )

    def workers(self):
        found = self.descendants().values()
        return sorted((each for each in found if each.name in WORKER_NAMES), key=lambda p: p.pid)


def environment(place):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TMPDIR": str(place.temporary),
        "HOME": str(place.home),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(("checkpoint_every", "seed"), [(1, 1), (3, 2)])
def test_training_whose_workers_are_killed_ends_as_the_undisturbed_one(
    place, checkpoint_every, seed
):
    write_tiny_corpus(place.root / "store")
    spec = resolve(SPEC, Runtime(place.root / "store", place.results))
    whole = Training(place, spec, place.root / "whole", 1)
    assert whole.end() == (0, ""), whole.said()

    rng = random.Random(seed)
    disturbed = Training(place, spec, place.results, checkpoint_every)
    # Once one of the two, then, when all have been started again, the other one.
    for kills, rank in enumerate(rng.sample((0, 1), 2), start=1):
        disturbed.wait_for(f"epoch {checkpoint_every * kills + 1}\n")
        time.sleep(rng.uniform(0, 1))
        victims = disturbed.workers()
        assert len(victims) == 2
        os.kill(victims[rank].pid, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while disturbed.said().count("workers were started again, now 2") < kills:
            assert disturbed.lives, disturbed.said()
            assert time.monotonic() < deadline, disturbed.said()
            time.sleep(0.1)
    assert disturbed.end() == (0, ""), disturbed.said()

    before, after = (
        RunFolder.of(root, spec.run_id) for root in (place.root / "whole", place.results)
    )
    records = [read_epochs(folder.epochs) for folder in (before, after)]
    for epoch in (*records[0], *records[1]):
        del epoch["seconds"]
    assert records[0] == records[1]
    assert [epoch["epoch"] for epoch in records[1]] == list(range(1, EPOCHS + 1))
    weights = [read_json(folder.frozen)["weights_sha256"] for folder in (before, after)]
    assert weights[0] == weights[1]
    assert place.left() == ([], [])


class Helpers(Campaign):
    """Kills the workers beside a trial's process."""

    def _victim(self, driver, kind):
        deadline = time.monotonic() + 120
        while True:
            found = (
                [each for each in driver.descendants().values() if each.name in WORKER_NAMES]
                if driver.workers()
                else []
            )
            if found:
                return self.rng.choice(found)
            assert driver.lives, driver.said()
            assert time.monotonic() < deadline, driver.said()
            time.sleep(0.05)


def test_search_whose_trials_lose_workers_ends_as_the_undisturbed_one_of_single_workers(place):
    write_tiny_corpus(place.root / "store")
    options = Options(
        root=str(place.root), study="gang", total=6, epochs=9, real=True, workers=2,
        dropout=0.0, space=["model.layers=int:1:2", "optimizer.lr=log:1e-4:1e-2"],
    )  # fmt: skip
    trials = Helpers(place, options, seed=5, plan={"worker": 2}).run()
    alone = undisturbed(replace(options, workers=1))
    assert [(t["number"], t["state"], t["params"], t["epochs"]) for t in trials] == [
        (t["number"], t["state"], t["params"], t["epochs"]) for t in alone
    ]
    assert [t["value"] for t in trials] == pytest.approx([t["value"] for t in alone])
    # The cores of a pruned trial came back: there are just enough of them for one trial.
    states = [trial["state"] for trial in trials]
    assert "PRUNED" in states[:-1]
    assert states_on_disk(place.results, trials) == states
    assert place.left() == ([], [])


ELASTIC = """
import json, os, socket, sys, threading, time
from pathlib import Path
os.environ.update(
    RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="15", RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.5",
    GLOO_SOCKET_IFNAME="lo", RAY_AUTH_MODE="disabled", RAY_CHDIR_TO_TRIAL_DIR="0",
)
import ray
from ray.cluster_utils import Cluster
from cider.spec import RunSpec
from cider_platform.runs.assembly import Runtime
from cider_platform.execution.capacity import Group
from cider_platform.layout import RunFolder
from cider_platform.runs.trial import read_epochs, train_run

spec = RunSpec.from_dict(json.loads(sys.argv[1]))
store, results, temporary = map(Path, sys.argv[2:5])
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
(temporary / "ray").mkdir(exist_ok=True)  # where Ray notes the address
cluster = Cluster(
    initialize_head=True,
    head_node_args={
        "num_cpus": 1, "temp_dir": str(temporary / "r"), "include_dashboard": True,
        "dashboard_port": port,
    },
)
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)
from cider_platform.execution.ray_group import fit

folder = RunFolder.of(results, spec.run_id)

def lose_a_node():
    while len(read_epochs(folder.epochs)) < 3:
        time.sleep(0.1)
    print("workers", folder.read_status()["workers"], flush=True)
    cluster.remove_node(second, allow_graceful=False)

threading.Thread(target=lose_a_node, daemon=True).start()
group = Group(least=1, most=2, cpus=1)
fit(spec, Runtime(store, results, threads=1), group, train=train_run, folder=temporary)
print("workers", json.loads(folder.result.read_text())["workers"], flush=True)
ray.shutdown()
cluster.shutdown()
"""


def test_elastic_training_goes_on_with_fewer_workers_when_a_machine_is_lost(place):
    write_tiny_corpus(place.root / "store")
    training = replace(SPEC.training, epochs=40, patience=40)
    spec = resolve(replace(SPEC, training=training), Runtime(place.root / "store", place.results))
    done = subprocess.run(
        [
            sys.executable, "-c", ELASTIC, json.dumps(spec.to_dict()), place.root / "store",
            place.results, place.temporary,
        ],
        env=environment(place), capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("workers")] == [
        "workers 2",
        "workers 1",
    ]
    epochs = read_epochs(RunFolder.of(place.results, spec.run_id).epochs)
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 41))
