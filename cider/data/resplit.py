"""Re-partition a corpus so that word-label association differs between training and test.

The test set is chosen by simulated annealing (``cider.data.annealing``) to make the word shift
(``cider.data.word_shift``) between it and the rest large; its size and its label histogram stay.
The rest is divided at random into training and validation of their old sizes, so validation follows
the training distribution and a selection on it cannot see the shift. The unit is the utterance:
utterances of one video may land in different splits, as in the published OOD corpora.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.annealing import STEPS_PER_UTTERANCE, anneal
from cider.data.datasets import refuse_reserved_name
from cider.data.label_table import read_label_table
from cider.data.schema import FRAME_MODALITIES, ROWS_PER_BATCH, StoreKey
from cider.data.store import FeatureStore
from cider.data.word_shift import MIN_COUNT, build_word_table, label_distance
from cider.data.writer import StoreWriter, refuse_stored
from cider.errors import StoreError, UsageError
from cider.spec import SPLITS

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.progress import Progress
    from cider.data.schema import Manifest
    from cider.data.word_shift import WordTable
    from cider.spec import Split

DEFAULT_SEED = 1111


@dataclass(frozen=True, slots=True)
class _Whole:
    """All utterances of a corpus in one row of rows: training, then validation, then test."""

    store: FeatureStore
    ids: list[str]
    split_N: np.ndarray
    """int64: index into ``SPLITS``."""
    row_N: np.ndarray
    """int64: row within the split."""
    labels_N: np.ndarray
    source_classes: list[int | None]
    annotations: list[str | None]
    source_lengths: dict[str, list[int | None]]

    @classmethod
    def read(cls, store: FeatureStore) -> _Whole:
        views = [store.split(split) for split in SPLITS]
        tables = [read_label_table(store.folder, split) for split in SPLITS]
        sizes = [len(table.ids) for table in tables]
        return cls(
            store=store,
            ids=[name for table in tables for name in table.ids],
            split_N=np.repeat(np.arange(len(SPLITS)), sizes),
            row_N=np.concatenate([np.arange(size) for size in sizes]),
            labels_N=np.concatenate([table.labels for table in tables]),
            source_classes=[value for table in tables for value in table.source_classes],
            annotations=[value for table in tables for value in table.annotations],
            source_lengths={
                name: [value for view in views for value in view.source_lengths(name)]
                for name in FRAME_MODALITIES
            },
        )

    def token_ids(self) -> list[np.ndarray]:
        views = [self.store.split(split) for split in SPLITS]
        return [
            views[split].token_ids(row)
            for split, row in zip(self.split_N.tolist(), self.row_N.tolist(), strict=True)
        ]

    def member(self, split: Split) -> np.ndarray:
        """Return bool (N,): True for the utterances of a split."""
        member_N: np.ndarray = self.split_N == SPLITS.index(split)
        return member_N


def split_ood(
    root: Path,
    folder: Path,
    *,
    output_dataset: str,
    seed: int = DEFAULT_SEED,
    steps: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Store a corpus again with a test split whose words speak for other labels.

    Args:
        root: the store's root folder, where the result goes.
        folder: the stored corpus to re-partition.
        output_dataset: dataset name of the result; its distribution is ``ood``.
        seed: seeds the annealing and the division into training and validation.
        steps: proposals of the annealing; None is 40 for each utterance.
        overwrite: replace a stored corpus of the same name.
        progress: called while annealing and while storing.

    Returns:
        The manifest of the result; ``generator["report"]`` tells the shift before and after.

    Raises:
        StoreError: if the corpus is damaged, or an id occurs in two splits.
        UsageError: for a negative seed or number of steps.
    """
    if seed < 0 or (steps is not None and steps < 0):
        raise UsageError(f"--seed and --steps must be 0 or more, got {seed} and {steps}")
    store = FeatureStore.open(folder)
    key = StoreKey(dataset=output_dataset, alignment=store.manifest.alignment, distribution="ood")
    refuse_reserved_name(output_dataset)
    refuse_stored(root, key, overwrite)
    whole = _Whole.read(store)
    _refuse_shared_ids(whole, folder)
    before = {str(split): whole.member(split) for split in SPLITS}
    tokenizer = store.manifest.tokenizer
    table = build_word_table(
        whole.token_ids(),
        whole.labels_N,
        set(tokenizer.special_ids.values()),
        before["train"],
        before["test"],
    )
    if not table.num_words:
        raise StoreError(
            f"{store.manifest.key} is too small to shift: no word is in {MIN_COUNT} training and "
            f"{MIN_COUNT} test utterances that are not neutral"
        )
    number_of_steps = STEPS_PER_UTTERANCE * len(whole.ids) if steps is None else steps
    rng = np.random.default_rng(seed)
    found = anneal(table, before["test"], steps=number_of_steps, rng=rng, progress=progress)
    after = {"test": found.test_N, **_divide(~found.test_N, int(before["valid"].sum()), rng)}
    report = {
        "words": table.num_words,
        "steps": found.steps,
        "accepted": found.accepted,
        "chance": {
            other: round(table.chance_shift(*_sizes(before, other), rng), 6)
            for other in ("test", "valid")
        },
        "before": _report(table, before),
        "after": _report(table, after),
    }
    generator = {
        "kind": "split_ood",
        "seed": seed,
        "of": {"corpus": str(store.manifest.key), "content_sha256": store.manifest.content_sha256},
        "report": report,
        "source_generator": store.manifest.generator,
    }
    writer = _writer(root, key, store.manifest, generator, overwrite)
    with writer:
        for split in SPLITS:
            _copy(writer, split, whole, np.flatnonzero(after[split]).tolist(), progress)
        return writer.finish()


def _refuse_shared_ids(whole: _Whole, folder: Path) -> None:
    (name, count), *_ = Counter(whole.ids).most_common(1)
    if count > 1:
        raise StoreError(
            f"id {name!r} occurs {count} times in {folder}; a corpus can be re-partitioned when "
            "its ids are unique over all splits"
        )


def _divide(pool_N: np.ndarray, num_valid: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Divide the pool at random into training and validation."""
    order = rng.permutation(np.flatnonzero(pool_N))
    valid_N = np.zeros_like(pool_N)
    valid_N[order[:num_valid]] = True
    return {"valid": valid_N, "train": pool_N & ~valid_N}


def _sizes(members: dict[str, np.ndarray], other: str) -> tuple[int, int]:
    return int(members["train"].sum()), int(members[other].sum())


def _report(table: WordTable, members: dict[str, np.ndarray]) -> dict[str, float]:
    train_N = members["train"]
    return {
        f"{what}_train_{other}": round(value, 6)
        for other in ("test", "valid")
        for what, value in (
            ("word_shift", table.shift(train_N, members[other])),
            ("label_distance", label_distance(train_N, members[other], table.stratum_N)),
        )
    }


def _writer(
    root: Path, key: StoreKey, old: Manifest, generator: dict[str, Any], overwrite: bool
) -> StoreWriter:
    padded = [old.padded_lengths(split) for split in SPLITS]
    return StoreWriter(
        root,
        key,
        tokenizer=old.tokenizer,
        widths=old.widths,
        max_lengths={name: max(lengths[name] for lengths in padded) for name in padded[0]},
        source={**old.source, "re_partitioned": str(old.key)},
        default_encoder=old.default_encoder,
        synthetic=old.synthetic,
        generator=generator,
        overwrite=overwrite,
        dtype=old.dtype,
    )


def _copy(
    writer: StoreWriter, split: str, whole: _Whole, rows: list[int], progress: Progress | None
) -> None:
    """Store the given rows of the whole corpus as one split, batch by batch."""
    views = [whole.store.split(name) for name in SPLITS]
    for start in range(0, len(rows), ROWS_PER_BATCH):
        part = rows[start : start + ROWS_PER_BATCH]
        places = [(views[whole.split_N[n]], int(whole.row_N[n])) for n in part]
        writer.add(
            split,
            [whole.ids[n] for n in part],
            [view.texts[row] for view, row in places],
            [view.token_ids(row) for view, row in places],
            [view.frames("audio", row) for view, row in places],
            [view.frames("vision", row) for view, row in places],
            whole.labels_N[part],
            [whole.source_classes[n] for n in part],
            [whole.annotations[n] for n in part],
            source_lengths={
                name: [column[n] for n in part] for name, column in whole.source_lengths.items()
            },
        )
        if progress is not None:
            progress(f"store {split}", start + len(part), len(rows))
