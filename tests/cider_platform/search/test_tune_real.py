"""A real search: command line, Ray, Optuna and CIDer's trainer, interrupted in every way."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_corpus import write_tiny_corpus

import cider
import cider_platform
from cider.errors import UsageError
from cider.spec import LossConfig
from cider_platform.commands.options import SpecOptions, build_spec
from cider_platform.execution.capacity import choose_slots
from cider_platform.layout import RunFolder, StudyFolder, read_json
from cider_platform.lease import LeaseTakenError
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.trial import train_run
from cider_platform.search.driver import Plan, drive
from cider_platform.search.ledger import Ledger
from cider_platform.search.pruning import pruner_definition
from cider_platform.search.search import Report, Search
from cider_platform.search.space import read_space
from cider_platform.search.study import define, open_storage, read_study

TOTAL = 5
EPOCHS = 8
SETTINGS = ["model.width=8", "text_encoder.width=8", "training.batch_size=6"]
SPACE = ["model.layers=int:1:2", "loss.joint=float:0:1:0.5", "optimizer.lr=log:1e-3:1e-1"]
COMMAND = [
    sys.executable, "-m", "cider_platform", "tune", "--dataset", "tiny", "--study", "real",
    "--trials", str(TOTAL), "--epochs", str(EPOCHS), "--slots", "1", "--device", "cpu", "--json",
    *(word for each in SETTINGS for word in ("--set", each)),
    *(word for each in SPACE for word in ("--space", each)),
]  # fmt: skip
PATIENCE_SECONDS = 300


class Command:
    """One run of the command line, whose messages are read as they come."""

    def __init__(self, root):
        roots = [Path(module.__path__[0]).parent for module in (cider, cider_platform)]
        self.errors = root / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                COMMAND,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=root,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(map(str, roots)),
                    "CIDER_STORE": str(root / "store"),
                    "CIDER_RESULTS": str(root / "results"),
                    "HOME": str(root / "home"),
                },
            )

    def wait_for(self, text, count=1):
        """Wait until the messages have ``text`` so many times."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.errors.read_text().count(text) < count:
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline, self.errors.read_text()
            time.sleep(0.05)

    def end(self):
        """Wait for the end; return exit code, stdout and stderr."""
        out, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, self.errors.read_text()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    write_tiny_corpus(root / "store")
    (root / "home").mkdir()
    return root


@pytest.fixture(scope="module")
def plan(root):
    """What the command asks for."""
    spec = build_spec(
        SpecOptions(
            dataset="tiny", scale=None, alignment="unaligned", distribution="iid",
            task="three_class", model="cider", missing="rmfm", kept="", behaviour="corrected",
            encoder="", seed=1111, epochs=EPOCHS, settings=SETTINGS, maci=None,
            selection="validation",
        )
    )  # fmt: skip
    return Plan(
        study="real",
        spec=resolve(spec, runtime_of(root, "results")),
        space=read_space(SPACE, spec),
        total=TOTAL,
        pruner=pruner_definition("asha", EPOCHS),
        slots=choose_slots("cpu", slots=1),
    )


def runtime_of(root, results):
    return Runtime(root / "store", root / results, threads=1)


@pytest.fixture(scope="module")
def undisturbed(root, plan):
    """The trials of the same search without engine, processes or interruptions, one at a time."""
    runtime = runtime_of(root, "undisturbed")
    folder = StudyFolder.of(runtime.results, plan.study)
    definition = define(plan.spec, plan.space, sampler=plan.sampler, pruner=plan.pruner)
    ledger = Ledger(open_storage(folder), plan.study, definition)
    search = Search(
        ledger, plan.spec, total=TOTAL, results=runtime.results, resolve=lambda each: each,
        listener=lambda _: None,
    )  # fmt: skip
    while (job := search.next_job()) is not None:
        for result in train_run(job.spec, runtime):
            stale = result.epoch - result.best_epoch >= job.spec.training.patience
            report = Report(
                history=[(result.epoch, result.best_score)],
                is_last=stale or result.epoch == EPOCHS,
            )
            if search.on_report(job.number, report):
                break
        else:
            score = (result.epoch, result.best_score)
            search.on_report(job.number, Report(history=[score], is_finished=True))
    return ledger.trials()


class Listener:
    """Remembers what a search said."""

    def __init__(self):
        self.changes = []

    def begin(self, trials, total):
        self.changes.append((len(trials), total))

    def change(self, change):
        self.changes.append(change)


def drive_here(plan, root):
    """Drive the study in this process; only for what needs no Ray."""
    listener = Listener()
    runtime = runtime_of(root, "results")
    return drive(plan, runtime, train=train_run, resolve=resolve, listener=listener), listener


def test_search_interrupted_in_every_way_ends_as_the_undisturbed_one(root, plan, undisturbed):
    results = root / "results"
    study = StudyFolder.of(results, "real")

    # Ctrl-C while a trial runs.
    command = Command(root)
    command.wait_for("trial 1 runs")
    folder_of_ray = Path(read_json(study.lease)["folder"])
    assert folder_of_ray.is_dir()
    command.process.send_signal(signal.SIGINT)
    code, out, errors = command.end()
    assert (code, out) == (130, "")
    assert "the same command continues it" in errors
    assert "Traceback" not in errors
    assert not folder_of_ray.exists()

    # The worker dies: its trial goes on in another one. Meanwhile nobody else may drive the study.
    command = Command(root)
    command.wait_for("trial 2 runs")
    run = read_study(results, "real")[1][2].run
    worker = wait_for_worker(RunFolder.of(results, run))
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(LeaseTakenError, match=f"in the hands of process {command.process.pid} on"):
        drive_here(plan, root)
    command.wait_for("trial 3 runs")
    # The driver dies.
    folder_of_ray = Path(read_json(study.lease)["folder"])
    command.process.kill()
    command.end()
    before = read_study(results, "real")[1]

    # Another definition is not mixed in.
    other = replace(plan, spec=replace(plan.spec, loss=LossConfig(attention=0.9)))
    with pytest.raises(UsageError, match=r"loss\.attention = 0\.5, this command says 0\.9"):
        drive_here(other, root)

    # The same command goes on to the total.
    code, out, errors = Command(root).end()
    assert code == 0, errors
    assert "continuing" in errors
    assert not folder_of_ray.exists()
    _, trials = read_study(results, "real")
    assert trials == undisturbed
    finished = [trial for trial in before if trial.state in ("COMPLETE", "PRUNED")]
    assert trials[: len(finished)] == finished
    check_conclusion(json.loads(out)["data"], trials, results)

    # And once more: nothing is left to do, and no Ray is started.
    outcome, listener = drive_here(plan, root)
    assert outcome.trials == trials
    assert listener.changes == [(TOTAL, TOTAL)]
    assert list((root / "home").iterdir()) == []


def wait_for_worker(folder):
    """Return the process that trains a run, once it has begun."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while folder.state != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return folder.read_status()["pid"]


def check_conclusion(data, trials, results):
    best = data["best"]
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    assert best["score"] == max(trial.value for trial in complete)
    assert best["marks"] == ["synthetic"]
    assert [row["rate"] for row in best["evaluations"]] == [0.0, 0.5]
    assert all(0 <= row["test"]["acc2"] <= 1 for row in best["evaluations"])
    for trial in trials:
        folder = RunFolder.of(results, trial.run)
        assert folder.state == trial.state
        # One line per epoch: none was trained twice, none is missing.
        lines = folder.epochs.read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, trial.epochs + 1))
    assert read_json(StudyFolder.of(results, "real").table)["best"] == best
