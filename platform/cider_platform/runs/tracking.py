"""Live curves of runs for TensorBoard and MLflow: a listener around the training of a run.

What the epoch results hold (losses, validation metrics, score, tau, seconds) is written after every
epoch. A listener reads and writes files and nothing else: it takes no random number and touches no
tensor. Whatever goes wrong with it becomes one warning in the run's log, and the run goes on.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from cider.errors import UsageError
from cider_platform.layout import RunFolder
from cider_platform.results import marks, read_epochs
from cider_platform.runs import run_log
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cider.spec import RunSpec
    from cider.training.trainer import EpochResult
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
MLFLOW_URI = "MLFLOW_TRACKING_URI"
_PACKAGES = {TENSORBOARD: "tensorboardX", MLFLOW: "mlflow"}


class Tracker(Protocol):
    """Takes down the epochs of one run."""

    has_past: bool
    """True if earlier epochs of the run were taken down before."""

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        """Take down an epoch's numbers; what an interrupted run trains again replaces the old."""

    def close(self) -> None:
        """Let go of files and connections."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """Trains like ``train`` and takes every epoch down; can be pickled if ``train`` can."""

    train: Train
    kinds: tuple[str, ...]
    """``tensorboard``, ``mlflow`` or both."""
    group: str
    """What the runs belong to: the study's name, or ``runs``."""

    def __call__(self, spec: RunSpec, runtime: Runtime) -> Iterator[EpochResult]:
        """Yield the epoch results of ``train``, unchanged."""
        folder = RunFolder.of(runtime.results, spec.run_id)
        kinds = self.kinds if runtime.workers.is_first else ()
        listeners = [_Listener(kind, spec, runtime.results, self.group) for kind in kinds]
        try:
            for result in self.train(spec, runtime):
                for listener in listeners:
                    listener.take(result.to_dict(), folder)
                yield result
            for listener in listeners:
                listener.take(None, folder)
        finally:
            for listener in listeners:
                listener.close()


def tracked(train: Train, kinds: Sequence[str], group: str, results: Path) -> Train:
    """Return ``train``, with listeners if any are asked for.

    Args:
        train: yields epoch results.
        kinds: ``tensorboard``, ``mlflow``.
        group: the study's name, or ``runs``.
        results: root of runs and studies.

    Raises:
        UsageError: for another kind, one whose package is not installed, or if MLflow's store
            cannot be reached.
    """
    for kind in kinds:
        if kind not in _PACKAGES:
            raise UsageError(f"--log must be {' or '.join(_PACKAGES)}, got {kind!r}")
        if find_spec(_PACKAGES[kind]) is None:
            raise UsageError(
                f"--log {kind} needs the package {_PACKAGES[kind]}; install it with "
                f"pip install 'cider-platform[{kind}]'"
            )
    if MLFLOW in kinds:
        _prepare_mlflow(results, group)
    return Tracked(train, tuple(dict.fromkeys(kinds)), group) if kinds else train


def _prepare_mlflow(results: Path, group: str) -> None:
    """Make once, in the command, what the workers of a search would else make all at a time."""
    try:
        _experiment(_mlflow_client(results), results, group)
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        raise UsageError(
            f"--log mlflow cannot use {_mlflow_uri(results)} ({told}); set {MLFLOW_URI} to a store "
            "that is there, or unset it for a file beside the results"
        ) from error


def numbers(epoch: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an epoch result by the names of their curves, undefined ones left out.

    Args:
        epoch: JSON values of an ``EpochResult``.
    """
    named = {
        **{f"train/{name}": value for name, value in epoch["train"].items()},
        **{f"valid/{name}": value for name, value in epoch["valid"].items()},
        **{name: epoch[name] for name in ("score", "best_score", "tau", "seconds")},
    }
    return {
        name: float(value)
        for name, value in named.items()
        if value is not None and math.isfinite(value)
    }


class _Listener:
    """One tracker of one run, which gives up at its first fault."""

    def __init__(self, kind: str, spec: RunSpec, results: Path, group: str) -> None:
        self._kind = kind
        self._make: Callable[[], Tracker] = lambda: TRACKERS[kind](spec, results, group)
        self._tracker: Tracker | None = None
        self._failed = False

    def take(self, epoch: Mapping[str, Any] | None, folder: RunFolder) -> None:
        """Take an epoch down, before the first one all that came before it; None is the end."""
        if self._failed:
            return
        try:
            if self._tracker is None:
                self._tracker = self._make()
                if not self._tracker.has_past:
                    self._take_past(self._tracker, folder, epoch)
            if epoch is not None:
                self._tracker.epoch(epoch["epoch"], numbers(epoch))
        except Exception as error:  # a curve is worth no run: whatever it is, the run goes on
            self._failed = True
            told = " ".join(f"{type(error).__name__}: {error}".split())
            run_log.note(folder, "warning", f"--log {self._kind} gave up, the run goes on: {told}")

    @staticmethod
    def _take_past(tracker: Tracker, folder: RunFolder, first: Mapping[str, Any] | None) -> None:
        for past in read_epochs(folder.epochs):
            if first is None or past["epoch"] < first["epoch"]:
                tracker.epoch(past["epoch"], numbers(past))

    def close(self) -> None:
        if self._tracker is not None:
            with contextlib.suppress(Exception):  # what could be kept is written by now
                self._tracker.close()


class TensorBoard:
    """Event files below ``<results>/tensorboard/<group>/<run id>``.

    tensorboardX, which Ray Tune needs anyway, is used without its thread and queue: when that
    thread meets a full disk it dies, and the next epochs would wait for it for ever.
    """

    def __init__(self, spec: RunSpec, results: Path, group: str) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415 - 0.3 s, seldom used
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415
        from tensorboardX.proto.summary_pb2 import Summary  # noqa: PLC0415
        from tensorboardX.summary import text  # noqa: PLC0415

        folder = results / "tensorboard" / group / spec.run_id
        self.has_past = folder.is_dir() and any(folder.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._summary, self._session = Event, Summary, SessionLog
        # Two attempts of one second must not share a file.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.monotonic_ns()}")
        self._is_first = True
        if not self.has_past:
            values = spec.to_dict()
            rows = [f"| {path} | {value} |" for path, value in flat(values)]
            table = "\n".join(["| field | value |", "|---|---|", *rows])
            marked = ", ".join(marks(values))
            self._write(0, text("spec", f"{marked}\n\n{table}" if marked else table))

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        """Write an epoch's numbers."""
        if self._is_first and self.has_past:
            start = self._session(status=self._session.START)
            self._writer.write_event(
                self._event(wall_time=time.time(), step=step, session_log=start)
            )
        self._is_first = False
        each = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step, self._summary(value=each))

    def _write(self, step: int, summary: Any) -> None:  # noqa: ANN401 - a generated class
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run of an MLflow experiment named as the group, found again by the tag ``cider.run``."""

    def __init__(self, spec: RunSpec, results: Path, group: str) -> None:
        self._client = _mlflow_client(results)
        experiment = _experiment(self._client, results, group)
        found = self._client.search_runs([experiment], f"tags.`cider.run` = '{spec.run_id}'")
        self.has_past = bool(found)
        if found:
            self._run = found[0].info.run_id
            return
        values = spec.to_dict()
        tags = {"cider.run": spec.run_id, "cider.marks": ", ".join(marks(values))}
        self._run = self._client.create_run(experiment, run_name=spec.run_id, tags=tags).info.run_id
        for path, value in flat(values):
            self._client.log_param(self._run, path, str(value))

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        """Log an epoch's numbers."""
        from mlflow.entities import Metric  # noqa: PLC0415 - an optional package

        stamp = int(time.time() * 1000)
        named = {name.replace("@", "_at_"): value for name, value in values.items()}  # it has no @
        metrics = [Metric(name, value, stamp, step) for name, value in named.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """Say that no more will come."""
        self._client.set_terminated(self._run)


def _mlflow_uri(results: Path) -> str:
    return os.environ.get(MLFLOW_URI) or f"sqlite:///{results / 'mlflow.db'}"


def _mlflow_client(results: Path) -> Any:  # noqa: ANN401 - of an optional package
    # Numbers go to the store that was named and nowhere else.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient  # noqa: PLC0415 - an optional package

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    results.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=_mlflow_uri(results))


def _experiment(client: Any, results: Path, group: str) -> str:  # noqa: ANN401
    known = client.get_experiment_by_name(group)
    if known is not None:
        return str(known.experiment_id)
    # Without a place of their own, artifacts would go to the working folder.
    place = None if os.environ.get(MLFLOW_URI) else (results / "mlflow").as_uri()
    return str(client.create_experiment(group, artifact_location=place))


TRACKERS: dict[str, Callable[[RunSpec, Path, str], Tracker]] = {
    TENSORBOARD: TensorBoard,
    MLFLOW: MLflow,
}
