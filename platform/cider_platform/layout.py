"""Where runs, studies and grids keep their files: paths are properties, status writes atomic.

A run is complete only when ``status.json`` says ``COMPLETE``; that file is written last.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from cider.data.seal import FROZEN_FILE
from cider.errors import CiderError, UsageError

RunState = Literal["RUNNING", "COMPLETE", "FAILED", "PRUNED"]
RUN_STATES: tuple[RunState, ...] = get_args(RunState)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")


def check_name(what: str, name: str) -> str:
    """Return ``name`` if it can be the name of one folder.

    Args:
        what: the kind of name, for the message, e.g. ``"study"``.
        name: at most 120 letters, digits, ``_``, ``-`` and ``.``, the first a letter or digit.

    Raises:
        UsageError: if it has path parts or other characters.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a {what} name has letters, digits, '_', '-' and '.', at most 120, and begins with a "
            f"letter or digit; got {name!r}"
        )
    return name


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write so that a reader, or a crash, sees the whole old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads; results are shared like other files.
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path, values: object) -> None:
    """Write ``values`` as indented JSON, atomically; NaN and infinity are refused (ValueError)."""
    write_text_atomic(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - a JSON value can be anything
    """Return the parsed content of a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        CiderError: if it is not JSON.
    """
    try:
        # Bytes, because a report reads tens of thousands of these, and text is decoded twice.
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CiderError(f"{path} is not readable JSON ({error}); remove or restore it") from None


def now(timespec: str = "seconds") -> str:
    """Return the present time as ISO 8601 in UTC, to the second or what ``isoformat`` takes."""
    return datetime.now(UTC).isoformat(timespec=timespec)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, ``<results>/runs/<run id>``."""

    root: Path

    @classmethod
    def of(cls, results: Path, run_id: str) -> RunFolder:
        """Return the folder of a run under a results root; nothing is created."""
        return cls(results / "runs" / check_name("run", run_id))

    @property
    def run_id(self) -> str:
        """The run's id: the folder's name."""
        return self.root.name

    @property
    def spec(self) -> Path:
        """The resolved configuration, JSON."""
        return self.root / "spec.json"

    @property
    def epochs(self) -> Path:
        """One JSON line per finished epoch."""
        return self.root / "epochs.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Parent of the two checkpoints."""
        return self.root / "checkpoint"

    @property
    def last(self) -> Path:
        """Checkpoint file from which a stopped run continues."""
        return self.checkpoint / "last.safetensors"

    @property
    def best(self) -> Path:
        """Weights of the selected epoch."""
        return self.checkpoint / "best.safetensors"

    @property
    def statistics(self) -> Path:
        """What the run took from its training split: priors, class means, bias words."""
        return self.root / "statistics.safetensors"

    @property
    def fingerprint(self) -> Path:
        """Exact losses of the first optimisation steps and where they were computed, JSON."""
        return self.root / "fingerprint.json"

    @property
    def profile(self) -> Path:
        """Memory and time that a search's trial took, JSON."""
        return self.root / "profile.json"

    @property
    def provenance(self) -> Path:
        """Code, libraries, hardware and corpus of every session of the training, JSON."""
        return self.root / "provenance.json"

    @property
    def frozen(self) -> Path:
        """Record that ends a training and opens the test split."""
        return self.root / FROZEN_FILE

    @property
    def result(self) -> Path:
        """Summary of a finished run, JSON."""
        return self.root / "result.json"

    @property
    def evaluation(self) -> Path:
        """Folder of evaluations: ``<name>.json``."""
        return self.root / "evaluation"

    @property
    def predictions(self) -> Path:
        """Parquet data set of predictions, partitioned by protocol."""
        return self.root / "predictions"

    @property
    def log(self) -> Path:
        """Log text."""
        return self.root / "log.txt"

    @property
    def evaluation_error(self) -> Path:
        """Why a grid could not evaluate the frozen run, JSON; absent once it could."""
        return self.root / "evaluation-error.json"

    @property
    def lease(self) -> Path:
        """Which process trains this run now."""
        return self.root / "lease.json"

    @property
    def status(self) -> Path:
        """State and its facts, JSON; written last."""
        return self.root / "status.json"

    def evaluation_file(self, name: str) -> Path:
        """Return the path of an evaluation's result rows, JSON."""
        return self.evaluation / f"{check_name('evaluation', name)}.json"

    def predictions_file(self, name: str) -> Path:
        """Return the path of the predictions that an evaluation is of, Parquet.

        Args:
            name: the evaluation's, ``test-<protocol>-<rate or kept set>``.
        """
        _, protocol, condition = check_name("evaluation", name).split("-", maxsplit=2)
        return self.predictions / f"protocol={protocol}" / f"{condition}.parquet"

    def write_status(self, state: RunState, **facts: object) -> None:
        """Replace the status atomically.

        Args:
            state: one of ``RUN_STATES``.
            **facts: further JSON values, e.g. ``epoch=3`` or ``error="..."``.
        """
        if state not in RUN_STATES:
            raise ValueError(f"a run's state is one of {', '.join(RUN_STATES)}, got {state!r}")
        values = {"schema": 1, "run_id": self.run_id, "state": state, "time": now(), **facts}
        write_json_atomic(self.status, values)

    def read_status(self) -> dict[str, Any]:
        """Return the status, or an empty dictionary for a run that has not begun.

        Raises:
            CiderError: if the file is not JSON, or names no state.
        """
        try:
            values = read_json(self.status)
        except FileNotFoundError:
            return {}
        if not isinstance(values, dict) or values.get("state") not in RUN_STATES:
            raise CiderError(f"{self.status} names no run state; remove it and run again")
        return values

    @property
    def state(self) -> RunState | None:
        """The state, or None for a run that has not begun."""
        state: RunState | None = self.read_status().get("state")
        return state

    @property
    def is_complete(self) -> bool:
        """True once the run is frozen, its results are written and its status says so."""
        return self.state == "COMPLETE"


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of one study, ``<results>/studies/<name>``."""

    root: Path

    @classmethod
    def of(cls, results: Path, name: str) -> StudyFolder:
        """Return the folder of a study under a results root; nothing is created."""
        return cls(results / "studies" / check_name("study", name))

    @property
    def name(self) -> str:
        """The study's name: the folder's name."""
        return self.root.name

    @property
    def definition(self) -> Path:
        """What the study searches: base spec, space, sampler, pruner, versions; JSON."""
        return self.root / "study.json"

    @property
    def journal(self) -> Path:
        """Optuna's journal: the only truth about the study's trials."""
        return self.root / "optuna.journal"

    @property
    def lease(self) -> Path:
        """Who drives the study now."""
        return self.root / "lease.json"

    @property
    def packing(self) -> Path:
        """What trials of each shape take, and how many of them share a device; JSON."""
        return self.root / "packing.json"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files; nothing is ever read back from them."""
        return self.root / "tune"

    @property
    def table(self) -> Path:
        """Best configuration with its validation and sealed-test scores, JSON."""
        return self.root / "table.json"


@dataclass(frozen=True, slots=True)
class GridFolder:
    """The folder of one grid, ``<results>/grids/<grid id>``; runs and studies keep their state."""

    root: Path

    @classmethod
    def of(cls, results: Path, grid_id: str) -> GridFolder:
        """Return the folder of a grid under a results root; nothing is created."""
        return cls(results / "grids" / check_name("grid", grid_id))

    @property
    def grid_id(self) -> str:
        """The grid's id: the folder's name, made of the job's name and a hash of its cells."""
        return self.root.name

    @property
    def cells(self) -> Path:
        """The job's name, and its cells with their runs, JSON."""
        return self.root / "cells.json"

    @property
    def execution(self) -> Path:
        """How it was run last, JSON; no number depends on it."""
        return self.root / "execution.json"

    @property
    def lease(self) -> Path:
        """Which process drives the grid now."""
        return self.root / "lease.json"

    @property
    def log(self) -> Path:
        """One line per thing that happened."""
        return self.root / "log.txt"

    @property
    def cancel(self) -> Path:
        """Exists while the driver is asked to stop."""
        return self.root / "cancel.json"
