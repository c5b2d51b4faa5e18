"""A study as one table: a row per trial, for spreadsheets and programs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cider.errors import UsageError
from cider_platform.layout import write_bytes_atomic
from cider_platform.results import marks
from cider_platform.search.ledger import records
from cider_platform.search.study import objective_names, space_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import optuna
    from optuna.trial import FrozenTrial

Row = dict[str, Any]
SCHEMA = "cider.study.export/1"


def export_rows(study: optuna.Study) -> list[Row]:
    """Return one row per trial; every row has the same columns.

    Columns: number, state, the objective's value (``value``, or ``value.<objective>`` where there
    are several), epochs, run, seed, ``repeats`` (the trial whose configuration it repeats on
    another seed), error, ``began`` and ``ended`` (ISO 8601, UTC), ``seconds`` it ran, ``marks``,
    and ``params.<field>`` for every searched field. What a trial has not is None. The value of a
    pruned trial is the one it was stopped with.
    """
    definition = study.user_attrs
    space = space_of(definition)
    names = objective_names(definition)
    marked = ", ".join(marks(definition.get("base", {})))
    return [
        {
            "number": record.number,
            "state": record.state,
            **_values(trial, names),
            "epochs": record.epochs,
            "run": record.run,
            "seed": record.seed,
            "repeats": record.repeats,
            "error": record.error,
            **_times(trial),
            "seconds": record.seconds,
            "marks": marked,
            **{f"params.{axis.path}": record.params.get(axis.path) for axis in space},
        }
        for trial, record in zip(
            study.get_trials(deepcopy=False), records(study, space), strict=True
        )
    ]


def _values(trial: FrozenTrial, names: list[str]) -> Row:
    values = trial.values if trial.values and trial.state.is_finished() else [None] * len(names)
    if len(names) == 1:
        return {"value": values[0]}
    return {f"value.{name}": value for name, value in zip(names, values, strict=True)}


def _times(trial: FrozenTrial) -> Row:
    """Return when a trial began and ended; Optuna keeps local times without their zone."""
    times = {"began": trial.datetime_start, "ended": trial.datetime_complete}
    return {
        name: None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")
        for name, time in times.items()
    }


def write_export(study: optuna.Study, path: Path) -> int:
    """Write a study's table whole, in the format that the file's name ends with.

    Args:
        study: what is written.
        path: ends with one of ``FORMATS``; replaced if it is there.

    Returns:
        How many trials were written.

    Raises:
        UsageError: for another ending.
    """
    write = FORMATS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"--out must end with {', '.join(FORMATS)}, got {path.name!r}")
    rows = export_rows(study)
    write_bytes_atomic(path, write(study, rows))
    return len(rows)


def _csv(study: optuna.Study, rows: list[Row]) -> bytes:  # noqa: ARG001 - as the other formats
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def _json(study: optuna.Study, rows: list[Row]) -> bytes:
    document: Mapping[str, Any] = {
        "schema": SCHEMA,
        "study": study.study_name,
        "objectives": objective_names(study.user_attrs),
        "trials": rows,
    }
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode("utf-8")


def _parquet(study: optuna.Study, rows: list[Row]) -> bytes:
    names = ", ".join(objective_names(study.user_attrs))
    facts = {"schema": SCHEMA, "study": study.study_name, "objectives": names}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(facts)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


FORMATS: dict[str, Callable[[optuna.Study, list[Row]], bytes]] = {
    ".csv": _csv,
    ".json": _json,
    ".parquet": _parquet,
}
