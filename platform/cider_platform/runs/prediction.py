"""Predictions of a finished run for a corpus it was not evaluated on; labels are never read.

Utterances are read from the mapped store and written a few batches at a time, so memory does not
grow with the features of the corpus.

Shapes: N utterances, C classes.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cider.condition import Condition
from cider.data.loader import BatchSource
from cider.errors import CiderError, UsageError
from cider.modality import PerModality
from cider.spec import SPLITS
from cider_platform.layout import read_json
from cider_platform.runs.evaluation import FrozenRun
from cider_platform.runs.resolving import open_corpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cider.data.store import FeatureStore, SplitView
    from cider.spec import DataConfig
    from cider_platform.layout import RunFolder
    from cider_platform.runs.assembly import Runtime

CLASS_NAMES = {
    "three_class": ("negative", "neutral", "positive"),
    "seven_class": ("-3", "-2", "-1", "0", "1", "2", "3"),
}
BATCHES_AT_A_TIME = 16
SUFFIXES = (".parquet", ".arrow")


class SplitRows:
    """Some consecutive rows of a split, as a split: what batches are drawn from.

    Args:
        split: the mapped split.
        first: number of the first row.
        count: how many rows, at most; the last ones may be fewer.
    """

    def __init__(self, split: SplitView, first: int, count: int) -> None:
        self._split, self._first = split, first
        self._count = min(count, len(split) - first)
        rows = slice(first, first + self._count)
        self.name = split.name
        self.ids = split.ids[rows]
        self.lengths: PerModality[np.ndarray] = split.lengths.map(lambda lengths_N: lengths_N[rows])

    def __len__(self) -> int:
        return self._count

    def token_ids(self, row: int) -> np.ndarray:
        """Return the token ids of a row."""
        return self._split.token_ids(self._first + row)

    def frames(self, modality: Any, row: int) -> np.ndarray:  # noqa: ANN401
        """Return the frames of a row."""
        return self._split.frames(modality, self._first + row)


def predict(
    folder: RunFolder,
    runtime: Runtime,
    data: DataConfig,
    out: Path,
    *,
    splits: Sequence[str] = SPLITS,
) -> int:
    """Write a run's predictions for a stored corpus, complete as it is: nothing is dropped.

    Args:
        folder: a complete run.
        runtime: where and how; its store holds the corpus the run was trained on, too.
        data: which corpus; the task is the run's.
        out: a new ``.parquet`` or ``.arrow`` file; columns id, split, probabilities (C) and
            prediction.
        splits: which splits.

    Returns:
        the number of utterances.

    Raises:
        CiderError: if the run is not complete, or the corpus does not fit its model.
        UsageError: for another file name, or one that is taken.
    """
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out must end with {' or '.join(SUFFIXES)}, got {str(out)!r}")
    if out.exists():
        raise UsageError(f"--out {out} is there already; remove it, or give another name")
    if not folder.is_complete:
        raise CiderError(f"run {folder.run_id} is not complete; only complete runs predict")
    frozen = read_json(folder.frozen)
    run = FrozenRun(folder, runtime)
    corpus = open_corpus(replace(run.spec, data=replace(data, task=run.spec.data.task)),
                         runtime.store)  # fmt: skip
    _check_fits(run.store, corpus)
    names = CLASS_NAMES[run.spec.data.task]
    facts = {
        "run": folder.run_id,
        "classes": names,
        "tau": frozen["tau"],
        "dataset": data.dataset,
        "synthetic": corpus.manifest.synthetic,
        "selection": run.spec.selection.rule,
    }
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("split", pa.string()),
            ("probabilities", pa.list_(pa.float64(), len(names))),
            ("prediction", pa.string()),
        ],
        metadata={"cider": json.dumps(facts)},
    )
    written = 0
    with _writer(out, schema) as write:
        for split in splits:
            for table in _tables(run, corpus.split(split), frozen["tau"], names, schema):
                write(table)
                written += table.num_rows
    return written


def _tables(
    run: FrozenRun, split: SplitView, tau: float, names: Sequence[str], schema: pa.Schema
) -> Iterator[pa.Table]:
    # Whole batches, so that padding is that of an evaluation.
    step = run.spec.training.batch_size * BATCHES_AT_A_TIME
    longest = run.store.manifest.padded_lengths("test")
    for first in range(0, len(split), step):
        rows = SplitRows(split, first, step)
        source = BatchSource(
            rows,  # type: ignore[arg-type]  # the part of a split that batches need
            None,
            widths=run.store.manifest.widths,
            longest=PerModality(longest["text"], longest["audio"], longest["vision"]),
            full_padding=run.spec.training.padding == "full",
        )
        (predictions,) = run.predict(source, [Condition("none", 0.0)]).predictions
        space = run.spec.maci.counterfactual_space
        scores_NC = predictions.scores(tau, space)
        yield pa.table(
            {
                "id": rows.ids,
                "split": [rows.name] * len(rows),
                "probabilities": list(probabilities(scores_NC, space)),
                "prediction": [names[index] for index in scores_NC.argmax(axis=1)],
            },
            schema=schema,
        )


def probabilities(scores_NC: np.ndarray, space: str) -> np.ndarray:
    """Return debiased scores as probabilities (N, C): the same order, at least 0, sums of 1.

    Args:
        scores_NC: Eq. 25: the factual prediction less tau times the counterfactual one.
        space: ``log_probability``: the softmax; ``probability``: what is below 0 lifts its row, and
            rows are divided by their sums. Where tau is 0 both are the model's own probabilities.
    """
    if space == "probability":
        lifted_NC = scores_NC - np.minimum(scores_NC.min(axis=1, keepdims=True), 0)
    else:
        lifted_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    sums_N1 = lifted_NC.sum(axis=1, keepdims=True)
    shares_NC: np.ndarray = np.full_like(lifted_NC, 1 / scores_NC.shape[1])
    np.divide(lifted_NC, sums_N1, out=shares_NC, where=sums_N1 > 0)
    return shares_NC


def _check_fits(trained: FeatureStore, corpus: FeatureStore) -> None:
    """Refuse a corpus that the run's model cannot read."""
    mine, theirs = trained.manifest, corpus.manifest
    if theirs.tokenizer != mine.tokenizer:
        raise CiderError(
            f"the run reads token ids of {mine.tokenizer.name}, {theirs.dataset} holds those of "
            f"{theirs.tokenizer.name}; import the corpus again with the run's tokenizer"
        )
    if theirs.widths != mine.widths:
        raise CiderError(
            f"the run reads features of widths {mine.widths}, {theirs.dataset} has "
            f"{theirs.widths}; extract them as those of the training corpus were"
        )
    if theirs.alignment != mine.alignment:
        raise CiderError(
            f"the run was trained on {mine.alignment} data, {theirs.dataset} is "
            f"{theirs.alignment}; give --alignment {mine.alignment}"
        )
    for modality, longest in mine.max_lengths.items():
        if theirs.max_lengths[modality] > longest:
            raise CiderError(
                f"{theirs.dataset} has {modality} of up to {theirs.max_lengths[modality]} steps, "
                f"the run's model was built for {longest}; import the corpus cut to that length"
            )


@contextlib.contextmanager
def _writer(out: Path, schema: pa.Schema) -> Iterator[Any]:
    """Yield what writes tables into a file that appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    opened = pq.ParquetWriter if out.suffix == ".parquet" else pa.ipc.new_file
    try:
        with opened(str(temporary), schema) as writer:
            yield writer.write_table if out.suffix == ".parquet" else writer.write
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
