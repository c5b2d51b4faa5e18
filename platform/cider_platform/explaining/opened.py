"""A frozen run opened to look at single utterances: where they lie, and the views it reads of them.

An utterance is read as an evaluation reads it: padded as far as its batch, in its place of it, with
the masks of its row. So what is shown of it is what the stored numbers are made of.

Shapes: B batch, T text steps, S frames, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.condition import Condition
from cider.data.seal import permit_for_frozen_run
from cider.errors import CiderError, NothingMatchedError, UsageError
from cider.spec import SPLITS
from cider.training.evaluation import Masks
from cider.views import counterfactual_view, incomplete_view
from cider_platform.layout import read_json
from cider_platform.runs.assembly import batch_source
from cider_platform.runs.conditions import evaluation_name
from cider_platform.runs.evaluation import FrozenRun
from cider_platform.runs.scoring import honest_tau

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cider.data.batch import View
    from cider.data.loader import BatchSource
    from cider.data.store import FeatureStore
    from cider.modality import PerModality
    from cider.spec import RunSpec, Split
    from cider_platform.layout import RunFolder
    from cider_platform.runs.assembly import Runtime

COMPLETE = Condition("none", 0.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One utterance of a corpus."""

    id: str
    split: Split
    row: int


@dataclass(frozen=True, slots=True)
class Tau:
    """How much of the counterfactual prediction is subtracted, and where that was chosen."""

    value: float
    origin: str


class OpenedRun:
    """A frozen run with its model and all splits of its corpus.

    Args:
        folder: the run's folder.
        runtime: where and how to execute.

    Raises:
        SealedTestError: if the run is not frozen, as an evaluation would.
    """

    def __init__(self, folder: RunFolder, runtime: Runtime) -> None:
        self._permit = permit_for_frozen_run(folder.root)
        self.folder = folder
        self.run = FrozenRun(folder, runtime)
        self.spec: RunSpec = self.run.spec
        self.store: FeatureStore = self.run.store
        self._sources: dict[str, BatchSource] = {}

    def source(self, split: Split) -> BatchSource:
        """Return a split with its labels; those of the test split by the seal's leave."""
        if split not in self._sources:
            self._sources[split] = batch_source(self.store, self.spec, split, self._permit)
        return self._sources[split]

    def label(self, sample: Sample) -> int:
        """Return the true class of an utterance."""
        labels_N = self.source(sample.split).labels_N
        assert labels_N is not None
        return int(labels_N[sample.row])

    def polarity(self, split: Split) -> np.ndarray:
        """Return a split's regression labels, float32 (N,); those of test by the seal's leave."""
        if split == "test":
            return self.store.test_labels(self._permit)
        return self.store.split(split).labels

    def find(self, ids: Sequence[str]) -> list[Sample]:
        """Return the utterances of these ids, in this order.

        Raises:
            NothingMatchedError: if there is none of an id.
            UsageError: if an id occurs in several splits.
        """
        rows = {
            split: {name: row for row, name in enumerate(self.store.split(split).ids)}
            for split in SPLITS
        }
        found = []
        for name in ids:
            splits = [split for split in SPLITS if name in rows[split]]
            if not splits:
                example = self.store.split("test").ids[0]
                raise NothingMatchedError(
                    f"no utterance of {self.store.manifest.key} has the id {name!r}; ids look like "
                    f"{example!r}, and predict writes all of them"
                )
            if len(splits) > 1:
                raise UsageError(
                    f"the id {name!r} occurs in {' and '.join(splits)} of "
                    f"{self.store.manifest.key}; import the corpus with ids that are unique"
                )
            found.append(Sample(name, splits[0], rows[splits[0]][name]))
        return found

    def mask_seed(self, seed: int | None) -> int:
        """Return the seed of the masks: the one asked for, or the run's, as evaluations use it.

        Raises:
            UsageError: if the run's masks come from the published code's generator.
        """
        if seed is None:
            return self.spec.seed
        if self.spec.missing.mask_source == "released":
            raise UsageError(
                "--seed draws other masks, but this run has missing.mask_source=released, whose "
                "masks have one fixed seed; leave --seed out"
            )
        return seed

    def view(
        self, sample: Sample, condition: Condition, seed: int | None = None
    ) -> tuple[View, PerModality[np.ndarray]]:
        """Return an utterance under a condition, a batch of one, and what is observed of it.

        Args:
            sample: the utterance.
            condition: the missing protocol and its rate.
            seed: of the masks; None: the run's.

        Returns:
            The view on the run's device; and bool (steps,) per modality, without padding.
        """
        source, size = self.source(sample.split), self.spec.training.batch_size
        first = sample.row - sample.row % size
        batch = source.batch(np.arange(first, min(first + size, len(source))))
        masks = Masks(source, condition, self.spec.missing, self.mask_seed(seed))
        place = sample.row - first
        observed = masks.of(batch).map(lambda mask_BT: mask_BT[place : place + 1])
        device = self.run.predictor.device
        whole = row_of(batch.complete, place)
        kept = whole.valid.zip_map(observed, lambda valid, mask: mask[valid].numpy())
        view = incomplete_view(whole, observed, self.run.predictor.token_ids)  # type: ignore[arg-type]
        return to_device(view, device), kept

    def views(self, split: Split, condition: Condition, most: int | None = None) -> Iterator[View]:
        """Yield a whole split under a condition, in stored order, on the run's device.

        Args:
            split: which utterances.
            condition: the missing protocol and its rate; the masks are those of an evaluation.
            most: utterances at a time, in parts of an evaluation's batches; None: whole batches.
        """
        source, predictor = self.source(split), self.run.predictor
        masks = Masks(source, condition, self.spec.missing, self.spec.seed)
        for start in range(0, len(source), predictor.batch_size):
            index_B = np.arange(start, min(start + predictor.batch_size, len(source)))
            count = -(-len(index_B) // (most or len(index_B)))
            for number in range(count):
                batch = source.batch(index_B, (number, count))
                observed = masks.of(batch).map(lambda mask: mask.to(predictor.device))
                complete = batch.to(predictor.device).complete
                yield incomplete_view(complete, observed, predictor.token_ids)  # type: ignore[arg-type]

    def counterfactual(self, view: View) -> View | None:
        """Return the counterfactual view of a view; None if the run has none."""
        predictor = self.run.predictor
        if predictor.kept_words is None:
            return None
        return counterfactual_view(view, predictor.kept_words, predictor.token_ids)

    def tau(self, condition: Condition, on_batch: Callable[[int, int], None] | None = None) -> Tau:
        """Return the run's tau under a condition: that of its evaluation, or chosen as there.

        Raises:
            CiderError: for a run that chose on the test split and was not evaluated so.
        """
        if self.run.predictor.kept_words is None:
            return Tau(0.0, "this run has no counterfactual text")
        path = self.folder.evaluation_file(evaluation_name(condition))
        if path.is_file():
            row = read_json(path)
            split = {"valid": "validation", "test": "the test split"}[row["tau_chosen_on"]]
            return Tau(float(row["tau"]), f"chosen on {split}, {said(condition)}")
        if self.spec.selection.rule == "published":
            raise CiderError(
                f"run {self.folder.run_id} chooses tau on the test split and was not evaluated "
                f"under {condition}; evaluate it under that condition first"
            )
        (predictions,) = self.run.predict(self.run.valid, [condition], on_batch).predictions
        answers = self.run.answers(self.run.valid, predictions)
        return Tau(honest_tau(self.spec, answers), f"chosen on validation, {said(condition)}")


def said(condition: Condition) -> str:
    """Return a condition for people."""
    return "nothing missing" if condition.protocol == "none" else str(condition)


def row_of(view: View, row: int) -> View:
    """Return one row of a whole batch's view as a batch of one that knows its place."""
    part = slice(row, row + 1)
    return replace(
        view,
        token_ids_BT=view.token_ids_BT[part],
        audio_BSF=view.audio_BSF[part],
        vision_BSF=view.vision_BSF[part],
        valid=view.valid.map(lambda valid_BT: valid_BT[part]),  # type: ignore[arg-type, return-value]
        row_B=torch.tensor([row]),
    )


def to_device(view: View, device: torch.device) -> View:
    """Return a view whose tensors lie on a device."""
    return replace(
        view,
        token_ids_BT=view.token_ids_BT.to(device),
        audio_BSF=view.audio_BSF.to(device),
        vision_BSF=view.vision_BSF.to(device),
        valid=view.valid.map(lambda valid_BT: valid_BT.to(device)),  # type: ignore[arg-type, return-value]
        row_B=None if view.row_B is None else view.row_B.to(device),
    )
