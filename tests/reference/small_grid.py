"""A grid on tiny corpora for tests: its job file, its command line, and running it without Ray."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tiny_corpus import write_tiny_corpus

import cider
import cider_platform
from cider_platform.grids.grid import make_grid
from cider_platform.grids.job import read_job
from cider_platform.grids.tasks import tasks_of
from cider_platform.grids.work import work
from cider_platform.runs.assembly import Runtime
from cider_platform.runs.trial import train_run

BASE = """
[base]
"model.width" = 8
"model.layers" = 1
"text_encoder.width" = 8
"text_encoder.layers" = 1
"training.batch_size" = 6
"training.epochs" = {epochs}
"training.patience" = 1000

[execution]
slots = {slots}
device = "cpu"
"""
# The loss is not finite after the first step: the run fails as a real one does.
BROKEN = '"optimizer.lr" = 1e30'


class Place:
    """A folder with a store, results and job files."""

    def __init__(self, root, *, epochs=2, slots=2):
        self.root, self.base = root, BASE.format(epochs=epochs, slots=slots)
        self._started = []
        self.store, self.results = root / "store", root / "results"
        write_tiny_corpus(self.store, "tiny")
        write_tiny_corpus(self.store, "other", seed=1)

    @property
    def runtime(self):
        return Runtime(self.store, self.results, "cpu", 1)

    def write(self, name, text):
        path = self.root / f"{name}.toml"
        path.write_text(self.base + text, encoding="utf-8")
        return path

    def grid(self, text, name="demo"):
        """Return the grid of a job, whose own [base] is added to that of all."""
        document, more = tomllib.loads(self.base), tomllib.loads(text)
        merged = {**document, **more, "base": {**document["base"], **more.get("base", {})}}
        return make_grid(read_job(name, merged), self.store)

    def run_inline(self, grid, *, retry_failed=False, train=train_run):
        """Do the work of a grid in this process; return run -> error."""
        tasks = tasks_of(grid, self.results, retry_failed=retry_failed)
        return {task.run: work(task, train, self.runtime) for task in tasks}

    def start(self, *words):
        """Start a command; its messages go to a file."""
        roots = [Path(module.__path__[0]).parent for module in (cider, cider_platform)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)),
                       "CIDER_STORE": str(self.store),
                       "CIDER_RESULTS": str(self.results)}  # fmt: skip
        with (self.root / "messages").open("a") as messages:
            process = subprocess.Popen(
                [sys.executable, "-m", "cider_platform", *map(str, words)],
                stdout=subprocess.PIPE, stderr=messages, text=True, cwd=self.root, env=environment,
            )  # fmt: skip
        self._started.append(process)
        return process

    def stop(self):
        """End what a test that failed has left running."""
        for process in self._started:
            process.kill()
            process.wait()
            process.stdout.close()

    def command(self, *words, code=0):
        """Run a command to its end; return its JSON document's data, if it prints one."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=280)
        assert process.returncode == code, (self.root / "messages").read_text()
        return json.loads(output)["data"] if "--json" in words else output
