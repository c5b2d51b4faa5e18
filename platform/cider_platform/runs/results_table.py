"""All runs of a results folder as one Arrow table; ``cider_platform.results.load`` is the door."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from cider.errors import NothingMatchedError
from cider_platform.results import evaluations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cider_platform.fields import Fields
    from cider_platform.results import RunRecord

KEYS = (
    "run", "state", "dataset", "task", "alignment", "distribution", "model", "seed", "marks",
)  # fmt: skip
"""Columns of a run that stand beside each of its evaluations."""


def runs_table(runs: Sequence[Fields]) -> pa.Table:
    """Return one row per run and one column per field that any of them has."""
    names = list(dict.fromkeys(name for fields in runs for name in fields))
    return pa.table({name: _column([fields.get(name) for fields in runs]) for name in names})


def evaluations_table(records: Sequence[RunRecord]) -> pa.Table:
    """Return one row per run and condition: protocol, rate, kept set, tau, masks, metrics."""
    rows: list[dict[str, Any]] = []
    for record in records:
        summary = record.summary()
        keys = {name: summary[name] for name in KEYS}
        for row in evaluations(record):
            masks = row.get("masks", {})
            rows.append(
                {
                    **keys,
                    **{
                        name: row[name] for name in ("selection", "protocol", "rate", "kept", "tau")
                    },
                    **{f"masks.{split}": masks.get(split) for split in ("valid", "test")},
                    **{
                        f"{split}.{name}": value
                        for split in ("valid", "test")
                        for name, value in row[split].items()
                    },
                }
            )
    return runs_table(rows)


def predictions_table(records: Sequence[RunRecord]) -> pa.Table:
    """Return one row per run, condition, split and utterance.

    Raises:
        NothingMatchedError: if no run has stored predictions.
    """
    tables = []
    for record in records:
        paths = sorted(map(str, record.folder.predictions.glob("protocol=*/*.parquet")))
        if not paths:
            continue
        partitions = ds.partitioning(pa.schema([("protocol", pa.string())]), flavor="hive")
        table = ds.dataset(
            paths,
            format="parquet",
            partitioning=partitions,
            partition_base_dir=str(record.folder.predictions),
        ).to_table()
        run = pa.array([record.run_id] * len(table)).dictionary_encode()
        tables.append(table.replace_schema_metadata(None).add_column(0, "run", run))
    if not tables:
        raise NothingMatchedError(
            "none of these runs has stored predictions; cider-platform evaluate makes them"
        )
    # Lists of three and of seven classes have no type in common.
    widths = {table.schema.field("log_probs").type for table in tables}
    if len(widths) > 1:
        tables = [_with_lists_of_any_length(table) for table in tables]
    return pa.concat_tables([_plain(table) for table in tables])


def _plain(table: pa.Table) -> pa.Table:
    """Return the table without dictionaries, which differ from run to run."""
    fields = [
        pa.field(field.name, pa.string()) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _with_lists_of_any_length(table: pa.Table) -> pa.Table:
    fields = [
        pa.field(field.name, pa.list_(pa.float32()))
        if pa.types.is_fixed_size_list(field.type)
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _column(values: list[Any]) -> pa.Array:
    """Return a column; values of several kinds become JSON texts, plain texts stay."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(
            [None if each is None else each if isinstance(each, str) else json.dumps(each)
             for each in values]
        )  # fmt: skip
