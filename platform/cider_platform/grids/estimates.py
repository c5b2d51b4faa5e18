"""How long the runs of a grid may take: from what past runs of the same shape took.

Two runs have the same shape if an epoch costs them the same: corpus, network and batches agree,
while seed, learning rates, loss weights and the missing protocol may differ. A duration is a past
run's seconds per epoch times its epochs until early stopping ended it; past runs are kept whole, so
quick epochs stay with the number of epochs they came with.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cider.config import canonical_json
from cider.errors import CiderError
from cider_platform.layout import read_json
from cider_platform.results import RunRecord, all_runs, read_epochs
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

# What an epoch's cost does not depend on; a dot at the end names a whole group. The hashes are left
# out because content may change without the size: the names of corpus and encoder stay.
_SAME_COST = (
    "schema", "seed", "loss.", "optimizer.", "missing.", "training.epochs", "training.patience",
    "training.gradient_clip", "training.clear_gradients", "selection.metric", "data.content_sha256",
    "text_encoder.weights_sha256", "maci.bias_words", "maci.bias_threshold", "maci.bias_classes",
    "maci.counterfactual_space",
)  # fmt: skip
_LONGEST_BREAK = 600.0
"""Seconds; files that came later are not of the evaluation that followed the training."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long one item may take."""

    seconds: tuple[float, ...]
    """Equally likely durations."""
    basis: str
    """What they come from, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a few steps of one shape took on one kind of device."""

    seconds_per_epoch: float
    seconds_per_condition: float
    """To evaluate under one missing protocol and rate: validation and test split once each."""
    start_seconds: float
    """To open the corpus and build the model."""
    device: str
    hardware: str
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What is known of one run that ended."""

    spec: dict[str, Any]
    state: str
    device: str
    hardware: str
    threads: int
    epochs: int
    seconds_per_epoch: float
    other_seconds: float
    """From its start to its end, outside of epochs; 0 if it was interrupted."""
    seconds_per_condition: float | None
    """None if it was not evaluated right after its training."""


@dataclass(slots=True)
class History:
    """Past runs and measurements of a results folder, by shape."""

    results: Path
    runs: list[PastRun] = field(default_factory=list)
    _by_shape: dict[frozenset[str], dict[str, list[PastRun]]] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Path) -> History:
        """Read every run of a results folder that ended well; runs cut off tell nothing."""
        found = (_past_run(record) for record in all_runs(results))
        return cls(results, [run for run in found if run is not None])

    def training(
        self,
        spec: Mapping[str, Any],
        *,
        device: str,
        threads: int | None = None,
        searched: Collection[str] = (),
    ) -> Estimate | None:
        """Return how long a training may take, or None if nothing is known of its shape.

        Args:
            spec: the run's spec as JSON values, resolved if its corpus is there.
            device: ``cpu`` or ``cuda``: times of one say nothing of the other.
            threads: CPU threads of the run; past runs with as many are preferred.
            searched: paths of fields that a search varies; then past trials of the same search
                count, pruned ones too.
        """
        limits = spec.get("training", {})
        epochs, patience = int(limits["epochs"]), int(limits["patience"])
        past = self._like(spec, device, threads, searched)
        if past:
            kept = [run for run in past if _same_patience(run, patience)]
            told = f"{_count(len(past), 'past run')} of this shape on {_hardware(past)}"
            if not kept:
                told += f", none with patience {patience}: all {epochs} epochs assumed"
            seconds = tuple(
                run.other_seconds + run.seconds_per_epoch * _epochs_of(run, epochs, patience)
                for run in (kept or past)
            )
            return Estimate(seconds, told)
        measured = self.measured(spec, device, searched)
        if measured is None:
            return None
        numbers, whose = self._epochs_elsewhere(device, epochs, patience)
        return Estimate(
            tuple(measured.start_seconds + measured.seconds_per_epoch * each for each in numbers),
            f"calibrated on {measured.hardware}; {whose}",
        )

    def evaluation(
        self,
        spec: Mapping[str, Any],
        *,
        conditions: int,
        device: str,
        threads: int | None = None,
        searched: Collection[str] = (),
    ) -> Estimate | None:
        """Return how long an evaluation under some conditions may take, or None if unknown."""
        past = self._like(spec, device, threads, searched)
        timed = [(run, run.seconds_per_condition) for run in past]
        each = [(run, seconds) for run, seconds in timed if seconds is not None]
        if each:
            return Estimate(
                tuple(conditions * seconds for _, seconds in each),
                f"{_count(len(each), 'past evaluation')} of this shape",
            )
        measured = self.measured(spec, device, searched)
        if measured is not None:
            seconds = measured.start_seconds + conditions * measured.seconds_per_condition
            return Estimate((seconds,), f"calibrated on {measured.hardware}")
        if past:
            # Two passes without gradients over splits smaller than the one that is trained on.
            most = tuple(run.other_seconds + conditions * run.seconds_per_epoch for run in past)
            return Estimate(most, "at most an epoch per condition")
        return None

    def measured(
        self, spec: Mapping[str, Any], device: str, searched: Collection[str] = ()
    ) -> Measured | None:
        """Return the calibration of a shape, if there is one that can be read."""
        try:
            values = read_json(calibration_file(self.results, spec, device, searched))
            return Measured(**values["measured"])
        except (OSError, CiderError, KeyError, TypeError):
            # Unreadable is as good as absent: it is measured again when that is asked for.
            return None

    def _like(
        self,
        spec: Mapping[str, Any],
        device: str,
        threads: int | None,
        searched: Collection[str],
    ) -> list[PastRun]:
        fields = frozenset(searched)
        if fields not in self._by_shape:
            groups: dict[str, list[PastRun]] = {}
            for run in self.runs:
                groups.setdefault(shape_of(run.spec, fields), []).append(run)
            self._by_shape[fields] = groups
        found = [
            run
            for run in self._by_shape[fields].get(shape_of(spec, fields), [])
            if run.device == device and (searched or run.state == "COMPLETE")
        ]
        if device == "cuda" or threads is None:
            return found
        return [run for run in found if run.threads == threads] or found

    def _epochs_elsewhere(
        self, device: str, epochs: int, patience: int
    ) -> tuple[tuple[int, ...], str]:
        """Return epochs until the end of past runs of other shapes that could stop as early."""
        others = [
            run
            for run in self.runs
            if run.device == device and run.state == "COMPLETE" and _same_patience(run, patience)
        ]
        if not others:
            return (epochs,), f"all {epochs} epochs assumed"
        numbers = tuple(_epochs_of(run, epochs, patience) for run in others)
        return numbers, f"epochs of {_count(len(others), 'past run')} of other shapes"


def shape_of(spec: Mapping[str, Any], searched: Collection[str] = ()) -> str:
    """Return 16 hexadecimal digits that name what an epoch's cost depends on.

    Args:
        spec: a run's spec as JSON values.
        searched: paths of fields that are left out too.
    """
    values = {
        path: value
        for path, value in flat(spec)
        if path not in searched and "dropout" not in path and not path.startswith(_SAME_COST)
    }
    if spec.get("text_encoder", {}).get("source") not in ("scratch", "", None):
        # Only an encoder from scratch has these.
        for name in ("layers", "width", "heads"):
            values.pop(f"text_encoder.{name}", None)
    if str(spec.get("data", {}).get("dataset", "")).startswith("synthetic-"):
        # Such a corpus brings its own encoder, so naming it or not is the same.
        values = {
            path: "scratch" if path == "text_encoder.source" and not value else value
            for path, value in values.items()
        }
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


def calibration_file(
    results: Path, spec: Mapping[str, Any], device: str, searched: Collection[str] = ()
) -> Path:
    """Return where the calibration of a shape on a kind of device is kept."""
    return results / "calibrations" / f"{shape_of(spec, searched)}-{device}.json"


def _same_patience(run: PastRun, patience: int) -> bool:
    return int(run.spec["training"]["patience"]) == patience


def _epochs_of(run: PastRun, epochs: int, patience: int) -> int:
    """Return how many epochs a run like a past one would train under other limits."""
    had = int(run.spec["training"]["epochs"])
    ended_by_limit = run.state == "COMPLETE" and run.epochs >= had
    if not _same_patience(run, patience) or (ended_by_limit and epochs > had):
        return epochs  # nobody knows where it would have stopped
    return min(run.epochs, epochs)


def _past_run(record: RunRecord) -> PastRun | None:
    """Return what a record tells, or None if it did not end or its files do not say enough."""
    if record.state not in ("COMPLETE", "PRUNED"):
        return None
    try:
        where = read_json(record.folder.fingerprint)["environment"]
        epochs, seconds = (
            int(record.result.get("epochs", 0)),
            float(record.result.get("seconds", 0)),
        )
        if not epochs:
            lines = read_epochs(record.folder.epochs)
            epochs, seconds = len(lines), sum(float(each["seconds"]) for each in lines)
        if not epochs:
            return None
        return PastRun(
            spec=record.spec,
            state=record.state,
            device=str(where["device"]),
            hardware=str(where["gpu"] or where["cpu"]),
            threads=int(where["threads"]),
            epochs=epochs,
            seconds_per_epoch=seconds / epochs,
            other_seconds=_other_seconds(record, seconds),
            seconds_per_condition=_seconds_per_condition(record),
        )
    except (OSError, CiderError, KeyError, TypeError, ValueError):
        # Copied in part, or of another version: other runs tell enough.
        return None


def _other_seconds(record: RunRecord, in_epochs: float) -> float:
    if not record.status.get("started") or not record.status.get("ended"):
        return 0.0
    began, ended = (datetime.fromisoformat(record.status[name]) for name in ("started", "ended"))
    # An interrupted run has the start of its last part alone, and more seconds than fit into it.
    return max(0.0, (ended - began).total_seconds() - in_epochs)


def _seconds_per_condition(record: RunRecord) -> float | None:
    """Return what an evaluation right after the training took, over its conditions.

    One pass serves all conditions and their files are written at its end, so only the whole time
    means something; loading the model is part of it.
    """
    if not record.status.get("ended"):
        return None
    trained = datetime.fromisoformat(record.status["ended"]).timestamp()
    last, count = trained, 0
    for written in sorted(_written(record.folder.evaluation)):
        if not 0 <= written - last < _LONGEST_BREAK:
            break
        last, count = written, count + 1
    return (last - trained) / count if count else None


def _written(folder: Path) -> Iterator[float]:
    for path in folder.glob("*.json"):
        yield path.stat().st_mtime


def _hardware(runs: Collection[PastRun]) -> str:
    return " and ".join(name for name, _ in Counter(run.hardware for run in runs).most_common(2))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
