"""Why a run or a trial is in the state it is in: what its files say, put together for a person.

Reading changes nothing. What is known about causes stands in ``cider_platform.search.diagnosis``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cider.errors import NothingMatchedError
from cider_platform.layout import RunFolder
from cider_platform.results import RunRecord, read_epochs, read_run
from cider_platform.runs import run_log
from cider_platform.search.diagnosis import (
    UNKNOWN_REMEDY,
    Evidence,
    FirstError,
    cause_of,
    traceback_of,
)
from cider_platform.search.objectives import directions
from cider_platform.search.study import objective_names
from cider_platform.tables import number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import optuna

    from cider_platform.search.ledger import TrialRecord

_CRASH = "Fatal Python error"
LAST_LINES = 20
"""Lines of the log that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What there is to say about a run or a trial."""

    state: str
    summary: str
    """One sentence: what happened."""
    cause: str | None = None
    """Name of a known cause of failure."""
    memory_ran_out: bool = False
    remedy: str | None = None
    """What to do, one sentence; None where nothing is to be done."""
    error: str | None = None
    """The error as the run or the study recorded it."""
    first_error: FirstError | None = None
    """Where it began, by the log's traceback."""
    run: str | None = None
    epochs: int = 0
    """Epochs finished."""
    began: str | None = None
    """Of the first attempt; ISO 8601, UTC."""
    ended: str | None = None
    host: str | None = None
    """Of the last attempt."""
    pid: int | None = None
    attempts: int = 0
    """How often a process has begun to train it."""
    log: list[str] = field(default_factory=list)
    """Its last lines."""
    log_file: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON values."""
        return asdict(self)


def why_run(record: RunRecord) -> Explanation:
    """Explain the state of a run."""
    epochs = _finished_epochs(record)
    if record.state in ("FAILED", "UNREADABLE"):
        return _failed(record, error=record.error, again=_RUN_AGAIN)
    if record.state == "COMPLETE":
        return _explained(record, summary=_complete(record, epochs))
    if record.state == "RUNNING":
        return _explained(record, summary=f"it is being trained; {_so_far(record)}")
    if record.state == "PRUNED":
        return _explained(
            record,
            summary=f"a search stopped it: other trials did better; {_so_far(record)}",
            remedy="nothing is wrong; cider-platform train with its options would train it on",
        )
    entries = run_log.read(record.folder)
    if _told_of_fault(entries):
        return _failed(record, error=_last_words(entries), again=_RUN_AGAIN)
    return _explained(
        record,
        summary="the process that trained it is gone: it was stopped or killed, or its machine "
        f"went down; {_so_far(record)}",
        remedy=f"give the same command again: it goes on after epoch {epochs}",
    )


def why_trial(
    study: optuna.Study, trials: Sequence[TrialRecord], trial_number: int, results: Path
) -> Explanation:
    """Explain the state of a trial.

    Args:
        study: the study, for what Optuna keeps of a trial.
        trials: the study's trials, by number.
        trial_number: which of them.
        results: root of runs and studies.

    Raises:
        NothingMatchedError: if the study has no such trial.
    """
    if not 0 <= trial_number < len(trials):
        there = f"0 to {len(trials) - 1}" if trials else "none yet"
        raise NothingMatchedError(
            f"study {study.study_name} has no trial {trial_number}; it has {there}"
        )
    trial, stored = trials[trial_number], study.get_trials(deepcopy=False)[trial_number]
    record = None if trial.run is None else read_run(RunFolder.of(results, trial.run))
    if trial.state == "FAIL":
        return _failed(record, error=trial.error or "", again=_TRIAL_AGAIN, state="FAIL")
    if trial.state == "COMPLETE":
        names = objective_names(study.user_attrs)
        summary = f"nothing is wrong: complete after {trial.epochs} epochs with " + _placed(
            trial, trials, names
        )
        return _explained(record, summary=summary, state="COMPLETE", epochs=trial.epochs)
    if trial.state == "PRUNED":
        return _explained(
            record,
            summary=_pruned(trial, stored.user_attrs.get("pruned"), study.user_attrs),
            state="PRUNED",
            epochs=trial.epochs,
        )
    if trial.state == "WAITING":
        return _explained(record, summary="it waits for its turn", state="WAITING")
    if record is not None and record.state == "RUNNING":
        return _explained(record, summary=f"it is being trained; {_so_far(record)}")
    return _explained(
        record,
        summary="no process trains it now: its search was stopped or killed, or its worker is just "
        f"beginning; it has {trial.epochs} epochs",
        state="RUNNING",
        epochs=trial.epochs,
        remedy="give the same tune command again: it goes on with this trial first",
    )


_RUN_AGAIN = (
    "then give the same command again (a grid's with --retry-failed): it goes on from its last "
    "checkpoint"
)
_TRIAL_AGAIN = (
    "the failed trial stays in the study: a larger --trials tries others in its place, and "
    "cider-platform train with its options trains it by itself"
)


def _failed(
    record: RunRecord | None, *, error: str, again: str, state: str | None = None
) -> Explanation:
    entries = [] if record is None else run_log.read(record.folder)
    said = _last_attempt(entries)
    cause = cause_of(Evidence(text=f"{error}\n{said}", has_run=record is not None))
    remedy = UNKNOWN_REMEDY if cause is None else f"{cause.remedy}; {again}"
    return _explained(
        record,
        summary=f"it failed: {error or 'nothing says why'}",
        state=state,
        cause=None if cause is None else cause.name,
        memory_ran_out=cause is not None and cause.is_memory,
        remedy=remedy,
        error=error or None,
        first_error=traceback_of(said),
    )


def _last_attempt(entries: list[run_log.Entry]) -> str:
    """Return what was said of errors and deaths since the last beginning that has any."""
    told: list[str] = []
    for entry in reversed(entries):
        if entry.kind in ("error", "lost"):
            told.append(entry.text)
        elif entry.kind == "begin" and told:
            break
    # A crash leaves its stack without an entry of its own, below the line that was written last.
    crashes = [entry.text for entry in entries if _CRASH in entry.text]
    return "\n".join([*reversed(told), *crashes[-1:]])


def _told_of_fault(entries: list[run_log.Entry]) -> bool:
    """Return whether the last attempt ended with an error, a crash or a dead worker."""
    since = [index for index, entry in enumerate(entries) if entry.kind == "begin"]
    last = entries[since[-1] :] if since else entries
    return any(each.kind in ("error", "lost") or _CRASH in each.text for each in last)


def _last_words(entries: list[run_log.Entry]) -> str:
    """Return the last line of the last error, or the first line of what was said of a death."""
    for entry in reversed(entries):
        if entry.kind == "error":
            return entry.text.splitlines()[-1]
        if entry.kind == "lost":
            return entry.text.splitlines()[0]
    return "it crashed"


def _explained(record: RunRecord | None, **facts: Any) -> Explanation:  # noqa: ANN401 - fields
    """Return an explanation with what the run's files say, and ``facts`` above that."""
    if record is None:
        return Explanation(**facts)
    entries = run_log.read(record.folder)
    begins = [entry for entry in entries if entry.kind == "begin"]
    shortages = [each.text for each in entries if run_log.MORE_ROOM in each.text]
    if shortages and record.state != "FAILED":
        facts["summary"] += f"; memory ran out on the way: {shortages[-1]}"
        facts["memory_ran_out"] = True
    last, status = run_log.last_begin(entries), record.status
    known: dict[str, Any] = {
        "state": record.state,
        "run": record.run_id,
        "epochs": _finished_epochs(record),
        "began": begins[0].time if begins else status.get("started"),
        "ended": None if record.state == "RUNNING" else _ended(record, entries),
        "host": status.get("host") if last is None else last.host,
        "pid": status.get("pid") if last is None else last.pid,
        "attempts": len(begins),
        "log": [line for entry in entries for line in _lines(entry)][-LAST_LINES:],
        "log_file": str(record.folder.log) if entries else None,
    }
    return Explanation(
        **known | {name: value for name, value in facts.items() if value is not None}
    )


def _lines(entry: run_log.Entry) -> list[str]:
    return f"{entry.time} {entry.kind} {entry.text}".splitlines()


def _ended(record: RunRecord, entries: list[run_log.Entry]) -> str | None:
    ends = [entry.time for entry in entries if entry.kind in ("end", "error", "lost")]
    return record.status.get("ended") or (ends[-1] if ends else None)


def _finished_epochs(record: RunRecord) -> int:
    return len(read_epochs(record.folder.epochs))


def _so_far(record: RunRecord) -> str:
    epochs = read_epochs(record.folder.epochs)
    if not epochs:
        return "no epoch is finished"
    last = epochs[-1]
    return (
        f"{last['epoch']} epochs are finished, the best so far is {number(last['best_score'])} at "
        f"epoch {last['best_epoch']}"
    )


def _complete(record: RunRecord, epochs: int) -> str:
    result = record.result
    return (
        f"nothing is wrong: complete after {result.get('epochs', epochs)} epochs, "
        f"{result.get('metric', 'score')} {number(result.get('score'))} at epoch "
        f"{result.get('epoch', '?')}"
    )


def _placed(trial: TrialRecord, trials: Sequence[TrialRecord], names: Sequence[str]) -> str:
    """Return a complete trial's values and, of a single objective, its place."""
    values = [each.values for each in trials if each.values is not None]
    assert trial.values is not None, "a complete trial has values"
    told = ", ".join(
        f"{name} {number(value)}" for name, value in zip(names, trial.values, strict=True)
    )
    if len(names) > 1:
        return told
    sign = -1.0 if directions(names) == ["minimize"] else 1.0
    better = sum(sign * each[0] > sign * trial.values[0] for each in values)
    return f"{told}, number {better + 1} of {len(values)} complete trials"


def _pruned(trial: TrialRecord, told: dict[str, Any] | None, definition: dict[str, Any]) -> str:
    name = definition.get("pruner", {}).get("name", "the pruner")
    if not told:
        return (
            f"nothing is wrong: {name} stopped it at epoch {trial.epochs}, where it had "
            f"{number(trial.value)}"
        )
    rung = f" (rung {told['rung']})" if "rung" in told else ""
    text = (
        f"nothing is wrong: {name} stopped it at epoch {told['epoch']}{rung}, where it had "
        f"{number(told['value'])}, number {told['better'] + 1} of the {told['reached']} trials "
        "that had come so far"
    )
    if "needed" not in told:
        return text
    goes_on = "only the best went on" if told["kept"] == 1 else f"the best {told['kept']} went on"
    return f"{text}, of which {goes_on}: it needed more than {number(told['needed'])}"
