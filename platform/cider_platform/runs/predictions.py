"""Stored predictions: what a frozen run said of every utterance under every condition it met.

``<run>/predictions/protocol=<protocol>/<rate or kept set>.parquet`` holds both splits of one
condition, so a folder of them is a Parquet data set that is partitioned by protocol: pandas and
pyarrow read it whole. Log-probabilities are float32, as the model computes them, and lose nothing.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cider.condition import Condition
from cider.data.seal import permit_for_frozen_run
from cider.errors import CiderError, NothingMatchedError
from cider.training.evaluation import Predictions
from cider_platform.layout import write_bytes_atomic
from cider_platform.runs.conditions import evaluation_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cider_platform.layout import RunFolder

SCHEMA = 1
_FACTS = b"cider.predictions"


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions of a split's utterances, in stored order, with what they should be."""

    ids: list[str]
    labels_N: np.ndarray
    """int64 class labels."""
    predictions: Predictions


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored predictions of one run and condition."""

    condition: Condition
    valid: Answers
    test: Answers
    masks: dict[str, str]
    """Hash of the masks of each split; equal for runs that met the same."""


def write_predictions(
    path: Path,
    condition: Condition,
    answers: Mapping[str, Answers],
    masks: Mapping[str, str],
) -> None:
    """Write the predictions of both splits under one condition, whole or not at all.

    Args:
        path: ``RunFolder.predictions_file``.
        condition: what they were made under.
        answers: by split.
        masks: by split, hash of the masks.
    """
    table = pa.concat_tables([_table(split, each) for split, each in answers.items()])
    num_rows = len(table)
    table = table.add_column(0, "rate", pa.array(np.full(num_rows, condition.rate)))
    kept = pa.array([condition.kept] * num_rows).dictionary_encode()
    table = table.add_column(1, "kept", kept)
    facts = {
        "schema": SCHEMA,
        "protocol": condition.protocol,
        "rate": condition.rate,
        "kept": condition.kept,
        "masks": dict(masks),
    }
    table = table.replace_schema_metadata({_FACTS: json.dumps(facts).encode()})
    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd")
    write_bytes_atomic(path, buffer.getvalue())


def _table(split: str, answers: Answers) -> pa.Table:
    predictions, num_rows = answers.predictions, len(answers.ids)
    counterfactual_NC = predictions.counterfactual_NC
    return pa.table(
        {
            "split": pa.array([split] * num_rows).dictionary_encode(),
            "id": pa.array(answers.ids, pa.string()),
            "label": pa.array(answers.labels_N, pa.int8()),
            "log_probs": _lists(predictions.log_probs_NC),
            "counterfactual_log_probs": pa.nulls(
                num_rows, pa.list_(pa.float32(), predictions.log_probs_NC.shape[1])
            )
            if counterfactual_NC is None
            else _lists(counterfactual_NC),
        }
    )


def _lists(values_NC: np.ndarray) -> pa.FixedSizeListArray:
    flat = pa.array(values_NC.astype(np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values_NC.shape[1])


def read_predictions(folder: RunFolder, condition: Condition) -> Stored:
    """Return what a run predicted under a condition; no model and no corpus is needed.

    Raises:
        SealedTestError: if the run is not frozen.
        NothingMatchedError: if it was not evaluated under the condition.
        CiderError: if the file cannot be read.
    """
    permit_for_frozen_run(folder.root)
    path = folder.predictions_file(evaluation_name(condition))
    if not path.is_file():
        raise NothingMatchedError(
            f"run {folder.run_id} has no stored predictions under {condition}; "
            "cider-platform evaluate makes them"
        )
    try:
        # Not as a data set: the folder's name would come back as a column.
        table = pq.ParquetFile(path).read()
        facts = json.loads(table.schema.metadata[_FACTS])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CiderError(
            f"{path} holds no readable predictions ({error}); remove it and evaluate again"
        ) from None
    splits = np.asarray(table["split"].combine_chunks().cast(pa.string()))
    valid, test = (_answers(table.filter(pa.array(splits == split))) for split in ("valid", "test"))
    return Stored(condition, valid, test, dict(facts["masks"]))


def _answers(table: pa.Table) -> Answers:
    columns = {
        name: _matrix(table[name].combine_chunks())
        for name in ("log_probs", "counterfactual_log_probs")
    }
    log_probs_NC = columns["log_probs"]
    assert log_probs_NC is not None
    return Answers(
        table["id"].to_pylist(),
        table["label"].to_numpy().astype(np.int64),
        Predictions(log_probs_NC, columns["counterfactual_log_probs"]),
    )


def _matrix(lists: pa.FixedSizeListArray) -> np.ndarray | None:
    """Return float64 (N, C), or None if every list is null."""
    if lists.null_count:
        return None
    values: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return values.reshape(len(lists), -1)


def stored_conditions(folder: RunFolder) -> list[Condition]:
    """Return the conditions whose predictions a run has stored, by protocol, rate and kept set."""
    found = []
    for path in folder.predictions.glob("protocol=*/*.parquet"):
        protocol, name = path.parent.name.partition("=")[2], path.stem
        found.append(
            Condition(protocol, 0.0, name)
            if protocol == "smm"
            else Condition(protocol, float(name))
        )
    return sorted(found, key=lambda each: (each.protocol, each.rate, each.kept))
