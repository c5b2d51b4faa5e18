"""Runs as a person looks for them: listed, found by the beginning of an id, marked, as a table.

Reading changes nothing. In a notebook: ``results.load().to_pandas()``, see docs/results.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cider.errors import CiderError, NothingMatchedError, UsageError
from cider_platform.fields import Fields, run_fields
from cider_platform.layout import RunFolder, read_json
from cider_platform.lease import has_living_owner
from cider_platform.roots import results_root
from cider_platform.runs.query import needs_evaluations, parse_where, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What the files of one run say."""

    folder: RunFolder
    state: str
    """RUNNING, COMPLETE, FAILED or PRUNED; STOPPED if it says RUNNING but no process trains it;
    UNREADABLE with the reason in ``error``."""
    spec: dict[str, Any]
    status: dict[str, Any]
    result: dict[str, Any]
    error: str

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.folder.run_id

    @property
    def marks(self) -> list[str]:
        """What every table says beside this run's numbers."""
        return marks(self.spec, self.result)

    def summary(self) -> dict[str, Any]:
        """Return one row of a list, as JSON values."""
        data = self.spec.get("data", {})
        return {
            "run": self.run_id,
            "state": self.state,
            "dataset": data.get("dataset"),
            "task": data.get("task"),
            "alignment": data.get("alignment"),
            "distribution": data.get("distribution"),
            "model": self.spec.get("model", {}).get("name"),
            "seed": self.spec.get("seed"),
            "epochs": self.result.get("epochs"),
            "metric": self.result.get("metric"),
            "score": self.result.get("score"),
            "marks": self.marks,
            "error": self.error or None,
            "folder": str(self.folder.root),
        }


def marks(spec: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> list[str]:
    """Return the marks of a run's numbers: ``synthetic``, ``published selection``.

    Args:
        spec: the run's spec as JSON values.
        result: the run's result, which knows whether the corpus was generated.
    """
    dataset = str(spec.get("data", {}).get("dataset", ""))
    found = []
    if (result or {}).get("synthetic") or dataset.startswith("synthetic-"):
        found.append("synthetic")
    if spec.get("selection", {}).get("rule") == "published":
        found.append("published selection")
    return found


def all_runs(results: Path) -> list[RunRecord]:
    """Return every run under a results root, the one that began or ended last first."""
    parent = results / "runs"
    folders = [RunFolder(path) for path in parent.iterdir()] if parent.is_dir() else []
    found = [read_run(folder) for folder in folders if folder.status.is_file()]
    return sorted(
        found, key=lambda run: (str(run.status.get("time", "")), run.run_id), reverse=True
    )


def read_run(folder: RunFolder) -> RunRecord:
    """Return what a run's files say; a file that cannot be read makes the state UNREADABLE."""
    files: dict[str, dict[str, Any]] = {"spec": {}, "result": {}}
    status: dict[str, Any] = {}
    error = ""
    try:
        status = folder.read_status()
        for name, path in (("spec", folder.spec), ("result", folder.result)):
            if path.is_file():
                files[name] = read_json(path)
        state = str(status.get("state", "RUNNING"))
        if state == "RUNNING" and not has_living_owner(folder.lease):
            state = "STOPPED"
        error = str(status.get("error", ""))
    except (CiderError, OSError) as problem:
        state, error = "UNREADABLE", str(problem)
    return RunRecord(folder=folder, state=state, status=status, error=error, **files)


def find_run(results: Path, prefix: str) -> RunRecord:
    """Return the run whose id begins with ``prefix``.

    Raises:
        NothingMatchedError: if there is none.
        UsageError: if there are several; the message lists the first of them.
    """
    parent = results / "runs"
    names = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    matching = [name for name in names if name.startswith(prefix)] if prefix else []
    if prefix in matching:
        matching = [prefix]
    if not matching:
        raise NothingMatchedError(
            f"no run in {parent} has an id that begins with {prefix!r}; "
            "cider-platform runs list shows those there are"
        )
    if len(matching) > 1:
        shown = ", ".join(matching[:5]) + (", ..." if len(matching) > 5 else "")
        raise UsageError(f"{prefix!r} begins the ids of {len(matching)} runs: {shown}")
    return read_run(RunFolder(parent / matching[0]))


def evaluations(record: RunRecord) -> list[dict[str, Any]]:
    """Return a run's evaluations on the sealed test split, by protocol, rate and kept set."""
    try:
        paths = list(record.folder.evaluation.iterdir())
    except FileNotFoundError:
        return []
    rows = [read_json(path) for path in paths if path.name.endswith(".json")]
    return sorted(rows, key=lambda row: (row["protocol"], row["rate"], row["kept"]))


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """Return the epoch results of a run, in order; a last line cut off by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def find_runs(
    results: Path, where: Sequence[str] = (), sort: str = "", *, evaluated: bool = False
) -> list[tuple[RunRecord, Fields]]:
    """Return the runs that meet every condition, each with its fields.

    Args:
        results: root of runs and studies.
        where: conditions such as ``dataset=mosi`` or ``test.acc2@0.5>0.7``.
        sort: a field, smallest first, or ``-FIELD``, largest first; empty: the latest run first.
        evaluated: read evaluations even if no condition needs them.

    Raises:
        UsageError: for a condition that is none, or a field that no run has.
        NothingMatchedError: for a field of an evaluation that no run has.
    """
    conditions = parse_where(where)
    names = [*(each.field for each in conditions), sort.removeprefix("-")]
    evaluated = evaluated or needs_evaluations(names)
    records = all_runs(results)
    fields = [run_fields(each, evaluations(each) if evaluated else ()) for each in records]
    return [(records[number], fields[number]) for number in select(fields, conditions, sort)]


def load(
    results: Path | str | None = None,
    what: Literal["runs", "evaluations", "predictions"] = "runs",
    *,
    where: Sequence[str] = (),
    sort: str = "",
) -> pa.Table:
    """Return runs as an Arrow table; ``.to_pandas()`` makes a data frame of it.

    Args:
        results: root of runs and studies; None is where the commands look.
        what: ``runs``: a row per run, a column per field; ``evaluations``: a row per run and
            condition; ``predictions``: a row per run, condition, split and utterance, frozen runs
            only.
        where: conditions that the runs must meet, as ``runs list --where`` takes them.
        sort: the order of the runs, as ``runs list --sort`` takes it.

    Raises:
        UsageError: for an unknown ``what``, a condition that is none, or an unknown field.
        NothingMatchedError: if there is no such field or no stored prediction.
    """
    # Not at the top: pyarrow takes longer to import than a list of runs to print.
    from cider_platform.runs import results_table as table  # noqa: PLC0415

    if what not in ("runs", "evaluations", "predictions"):
        raise UsageError(f"load gives runs, evaluations or predictions, got {what!r}")
    root = results_root(None if results is None else Path(results))
    found = find_runs(root, where, sort, evaluated=what == "runs")
    if what == "runs":
        return table.runs_table([fields for _, fields in found])
    records = [record for record, _ in found]
    if what == "evaluations":
        return table.evaluations_table(records)
    return table.predictions_table([each for each in records if each.folder.frozen.is_file()])
