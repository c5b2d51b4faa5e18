"""Kill what runs a study, at seeded random moments, and give the same command again until it ends.

Only descendants of drivers started here are killed, found through ``/proc``.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from chaos_driver import Options, plan_of, row, runtime_of, train_of

import cider
import cider_platform
from cider_platform.execution import processes
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.search.driver import MAX_CLUSTER_DEATHS
from cider_platform.search.ledger import Ledger
from cider_platform.search.search import MAX_WORKER_DEATHS, Report, Search
from cider_platform.search.study import define, open_storage, open_study, read_study
from cider_platform.search.why import why_trial

HERE = Path(__file__).parent
PATIENCE_SECONDS = 600
GOING_ON = ("RUNNING", "WAITING")
NAMES = {"raylet": "raylet", "head": "gcs_server"}


class Place:
    """Folders of one study: results, store, home; and one of a short name for temporary files."""

    def __init__(self, root):
        self.root = root
        self.results = root / "results"
        self.home = root / "home"
        self.home.mkdir()
        self.temporary = Path(tempfile.mkdtemp(prefix="c"))

    def left(self):
        """Return processes and folders that a cluster has left behind."""
        running = [each.name for each in processes.of_folder(self.temporary)]
        # torch makes the folder of its compiler in every process that imports it.
        names = [path.name for path in self.temporary.iterdir()]
        return running, [name for name in names if not name.startswith("torchinductor")]

    def remove(self):
        processes.end_all_of(self.temporary)
        shutil.rmtree(self.temporary, ignore_errors=True)


class Driver:
    """One run of ``chaos_driver.py``."""

    def __init__(self, place, options, **environment):
        roots = [Path(module.__path__[0]).parent for module in (cider, cider_platform)]
        self.place = place
        self.started = time.monotonic()
        self.errors = place.root / f"stderr-{time.monotonic_ns()}"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "chaos_driver.py"), json.dumps(asdict(options))],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(map(str, [*roots, HERE])),
                    "TMPDIR": str(place.temporary),
                    "HOME": str(place.home),
                    **environment,
                },
            )

    @property
    def lives(self):
        return self.process.poll() is None

    def said(self):
        return self.errors.read_text()

    def wait_for(self, pattern):
        """Wait until the messages match a pattern."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(pattern, self.said())):
            assert self.lives, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return found

    def kill(self):
        self.process.kill()
        self.end()

    def end(self):
        """Wait for the end; return exit code and stdout."""
        out, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out

    def descendants(self):
        """Return its living descendants by process id."""
        parents = {}
        for each in processes.all_processes():
            if not each.is_dead:
                parents.setdefault(each.parent, []).append(each)
        found, todo = {}, [self.process.pid]
        while todo:
            for each in parents.get(todo.pop(), ()):
                found[each.pid] = each
                todo.append(each.pid)
        return found

    def workers(self):
        """Return the processes that train, or have begun to: those that hold a run's lease."""
        mine, found = self.descendants(), []
        for path in self.place.results.glob("runs/*/lease.json"):
            try:
                pid = json.loads(path.read_text())["pid"]
            except (ValueError, KeyError, FileNotFoundError):
                continue
            if pid in mine:
                found.append(mine[pid])
        return found

    def victims(self, kind):
        if kind == "worker":
            return self.workers()
        return [each for each in self.descendants().values() if each.name == NAMES[kind]]

    def running(self):
        """Return the numbers of the trials that it says are running, or wait for a new worker."""
        states = dict(re.findall(r"^trial (\d+) (\w+) ", self.said(), flags=re.MULTILINE))
        return [int(number) for number, state in states.items() if state in GOING_ON]


@dataclass
class Campaign:
    """Kills during one study, and what came of it."""

    place: Place
    options: Options
    seed: int
    plan: dict
    """How often each kind is killed: worker, driver, early driver, raylet, head."""
    environment: dict = field(default_factory=dict)
    kills: list = field(default_factory=list)
    drivers: int = 0
    seconds: float = 0.0

    def run(self):
        """Kill as planned and run the study to its end; return the printed trials."""
        started = time.monotonic()
        self.rng = random.Random(self.seed)
        kinds = [kind for kind, count in self.plan.items() for _ in range(count)]
        self.rng.shuffle(kinds)
        driver = self._start()
        for kind in kinds:
            driver = self._kill(driver, kind)
        code, out = driver.end()
        if self._has_given_up(driver, code):
            code, out = self._start().end()
        self.seconds = time.monotonic() - started
        assert code == 0, driver.said()
        return json.loads(out)

    def _start(self):
        self.drivers += 1
        self.deaths = Counter()
        self.cluster_deaths = 0
        return Driver(self.place, self.options, **self.environment)

    def _has_given_up(self, driver, code):
        """Return whether a driver ended as it should: without Ray, with a sentence."""
        said = driver.said()
        died_on_starting = "waits for it in vain" in said
        died_too_often = self.cluster_deaths > MAX_CLUSTER_DEATHS and "and so it did" in said
        return code == 1 and (died_on_starting or died_too_often)

    def _kill(self, driver, kind):
        if not driver.lives:
            assert self._has_given_up(driver, driver.end()[0]), driver.said()
            driver = self._start()
        if kind in ("driver", "early driver"):
            if kind == "driver":
                self._victim(driver, "worker")
            time.sleep(self.rng.uniform(0, 2 if kind == "driver" else 10))
            assert driver.lives, f"the study is too short: {driver.said()}"
            self._note(kind, driver)
            driver.kill()
            return self._start()
        victim = self._victim(driver, kind)
        time.sleep(self.rng.uniform(0, 1.5))
        self._note(kind, driver)
        # Whatever it is doing by now; if it has gone, there is one to take its place.
        now = processes.look(victim.pid)
        if now is None or now.is_dead or now.born != victim.born:
            victim = self._victim(driver, kind)
        os.kill(victim.pid, signal.SIGKILL)
        if kind == "worker":
            running = driver.running()
            self.deaths.update([*running, max(running, default=-1) + 1])
        else:
            self.deaths.clear()
            self.cluster_deaths += 1
            self._await_notice(driver)
        return driver

    def _await_notice(self, driver):
        """Wait until a driver starts Ray again, or has given up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        again = f"starting Ray again ({self.cluster_deaths} of"
        while driver.lives and again not in driver.said():
            assert time.monotonic() < deadline, driver.said()
            time.sleep(0.05)

    def _victim(self, driver, kind):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            spent = [n for n in driver.running() if self.deaths[n] >= MAX_WORKER_DEATHS]
            found = driver.victims(kind)
            if found and (kind != "worker" or not spent):
                return self.rng.choice(found)
            assert driver.lives, f"the study is too short: {driver.said()}"
            assert time.monotonic() < deadline, f"no {kind}: {driver.said()}"
            time.sleep(0.05)

    def _note(self, kind, driver):
        self.kills.append((kind, round(time.monotonic() - driver.started, 2), driver.running()))

    def computed(self, run):
        """Return the epochs that were computed for a run, in order."""
        path = self.place.results / "computed" / run
        return [int(line.split()[0]) for line in path.read_text().splitlines()]

    def redone(self, trials):
        """Return how many epochs were computed more than once, after checking each repetition."""
        total = 0
        for trial in trials:
            epochs = self.computed(trial["run"])
            assert sorted(set(epochs)) == list(range(1, trial["epochs"] + 1)), trial
            for before, after in pairwise(epochs):
                again = before + 1 - after
                assert 0 <= again <= self.options.checkpoint_every, (trial, epochs)
            total += len(epochs) - trial["epochs"]
        assert total <= self.options.checkpoint_every * len(self.kills)
        return total

    def summary(self):
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.plan.items()))
        return f"{len(self.kills)} kills ({counts}), {self.drivers} commands, {self.seconds:.0f} s"


def undisturbed(options):
    """Return the trials of the same search in this process, without engine, one at a time."""
    train, spec = train_of(options)
    runtime = runtime_of(options, "undisturbed")
    plan = plan_of(options, spec)
    definition = define(
        spec, plan.space, sampler=plan.sampler, pruner=plan.pruner, starts=plan.starts
    )
    folder = StudyFolder.of(runtime.results, plan.study)
    ledger = Ledger(open_storage(folder), plan.study, definition)
    search = Search(
        ledger, spec, total=plan.total, results=runtime.results, resolve=lambda each: each,
        listener=lambda _: None,
    )  # fmt: skip
    while (job := search.next_job()) is not None:
        for result in train(job.spec, runtime):
            report = Report(
                history=[(result.epoch, result.best_score)],
                is_last=result.epoch == options.epochs,
            )
            if search.on_report(job.number, report):
                break
        else:
            last = (result.epoch, result.best_score)
            search.on_report(job.number, Report(history=[last], is_finished=True))
    return json.loads(json.dumps([row(trial) for trial in ledger.trials()]))


def states_on_disk(results, trials):
    """Return what the run folders of trials say of themselves."""
    return [RunFolder.of(results, trial["run"]).state for trial in trials]


def explained(place, study, number):
    """Return what ``study why`` says of a trial."""
    return why_trial(
        open_study(place.results, study), read_study(place.results, study)[1], number, place.results
    )
