"""The training loop: a generator of epoch results that knows nothing of who consumes them."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.condition import Condition
from cider.errors import TrainingError
from cider.missing import training_masks
from cider.seeding import batch_order, bucketed_order
from cider.training.evaluation import (
    Masks,
    Predictor,
    Selected,
    all_metrics,
    as_bool,
    select_tau,
)
from cider.training.texts import read_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from cider.data.batch import Batch
    from cider.data.loader import BatchSource
    from cider.modality import PerModality
    from cider.spec import RunSpec
    from cider.training.update import TwoStepUpdate


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch led to."""

    epoch: int
    """1-based."""
    train: dict[str, float]
    """Mean of every loss term over the epoch's batches."""
    valid: dict[str, float]
    """Every metric at every selection rate (``acc2@0.5``) and its mean over them (``acc2``)."""
    score: float
    """What the epoch is selected by."""
    tau: float
    """Counterfactual weight chosen for this epoch."""
    best_score: float
    best_epoch: int
    is_best: bool
    seconds: float
    """Wall time of the epoch, validation included."""
    published: dict[str, float] | None = None
    """Only under the published selection, where ``score`` and ``tau`` are of the test split: the
    validation score, and the test score with the tau chosen on validation."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values; an undefined metric (NaN) becomes None."""
        values = asdict(self)
        values["valid"] = {
            name: value if math.isfinite(value) else None for name, value in self.valid.items()
        }
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EpochResult:
        """Read ``to_dict``'s values back."""
        valid = {
            name: math.nan if value is None else value for name, value in values["valid"].items()
        }
        return cls(**{**values, "valid": valid})


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: what its next epoch depends on beside the tensors."""

    epoch: int = 0
    best_score: float = float("-inf")
    best_epoch: int = 0
    best_tau: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; minus infinity, which JSON has not, becomes None."""
        values = asdict(self)
        values["best_score"] = None if self.epoch == 0 else self.best_score
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """Read ``to_dict``'s values back."""
        known = dict(values)
        if known["best_score"] is None:
            known["best_score"] = float("-inf")
        return cls(**known)


class Trainer:
    """Epochs of the two-step update with a validation pass after each.

    Args:
        spec: the resolved spec.
        update: one batch's update.
        predictor: runs the model over a split.
        train: training batches.
        valid: validation batches, with labels.
        device: where the model lies.
        test: the unsealed test split, only under the published selection.
        on_step: told of epoch (from 1) and loss terms after every optimisation step of an epoch.
    """

    def __init__(
        self,
        spec: RunSpec,
        update: TwoStepUpdate,
        predictor: Predictor,
        *,
        train: BatchSource,
        valid: BatchSource,
        device: torch.device,
        test: BatchSource | None = None,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
    ) -> None:
        self.spec = spec
        self.on_step = on_step
        self.update = update
        self.predictor = predictor
        self.train = train
        self.valid = valid
        self.test = test
        self.device = device
        # Masks of a condition are the same after every epoch.
        self.masks = {
            id(source): [
                Masks(source, condition, spec.missing, spec.seed)
                for condition in selection_conditions(spec)
            ]
            for source in (valid, test)
            if source is not None
        }

    def epochs(self, progress: Progress) -> Iterator[tuple[EpochResult, Progress]]:
        """Yield a result after every epoch until the last one, or until patience runs out."""
        training = self.spec.training
        read_texts(self.update.model, self.train, self.device)
        while (
            progress.epoch < training.epochs
            and progress.epoch - progress.best_epoch < training.patience
        ):
            result, progress = self._epoch(progress)
            yield result, progress

    def _epoch(self, progress: Progress) -> tuple[EpochResult, Progress]:
        started = time.perf_counter()
        epoch = progress.epoch + 1
        losses = self._train_epoch(epoch)
        chosen, valid = self._validate(self.valid, epoch)
        score, tau, published = chosen.score, chosen.tau, None
        if self.test is not None:
            on_test, _ = self._validate(self.test, epoch)
            _, honest = self._validate(self.test, epoch, chosen.tau)
            score, tau = on_test.score, on_test.tau
            published = {
                "valid_score": chosen.score,
                "test_at_valid_tau": honest[self.spec.selection_metric],
            }
        is_best = score > progress.best_score
        after = Progress(
            epoch,
            score if is_best else progress.best_score,
            epoch if is_best else progress.best_epoch,
            tau if is_best else progress.best_tau,
        )
        result = EpochResult(
            epoch=epoch,
            train=losses,
            valid=valid,
            score=score,
            tau=tau,
            best_score=after.best_score,
            best_epoch=after.best_epoch,
            is_best=is_best,
            seconds=time.perf_counter() - started,
            published=published,
        )
        return result, after

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        sums: dict[str, float] = {}
        count = 0
        for weight, terms in self.steps(epoch):
            if self.on_step is not None:
                self.on_step(epoch, terms)
            count += weight
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value * weight
        return {name: value / count for name, value in sums.items()}

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimisation steps of an epoch."""
        return -(-len(self.train) // self.spec.training.batch_size)

    def steps(self, epoch: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Train one epoch, yielding batch size and loss terms after every optimisation step.

        Raises:
            TrainingError: naming epoch and step, if a loss is not finite.
        """
        workers = self.update.workers
        self.update.model.train()
        workers.seed(self.spec.seed, epoch)
        batches = self.train.batches(
            self.spec.training.batch_size, self._order(epoch), part=workers.place
        )
        for step, cpu_batch in enumerate(batches, start=1):
            observed = self._observed(cpu_batch, epoch)
            try:
                terms = self.update(cpu_batch.to(self.device), observed)
            except TrainingError as error:
                raise TrainingError(f"epoch {epoch}, step {step}: {error}") from error
            yield cpu_batch.num_whole, terms

    def _order(self, epoch: int) -> np.ndarray:
        training, seed = self.spec.training, self.spec.seed
        if training.batching == "random":
            return batch_order(len(self.train), seed, epoch)
        return bucketed_order(self.train.split.lengths.text, training.batch_size, seed, epoch)

    def _observed(self, batch: Batch, epoch: int) -> PerModality[torch.BoolTensor]:
        if batch.stand_in:  # nothing of it was dropped that another worker does not count
            return batch.complete.valid.map(lambda mask: mask.to(self.device))  # type: ignore[arg-type, return-value]
        return (
            training_masks(
                self.spec.missing,
                self.train.split.lengths.map(lambda lengths_N: lengths_N[batch.index_B]),
                batch.index_B,
                seed=self.spec.seed,
                epoch=epoch,
                pad_to=batch.complete.valid.map(lambda valid_BT: valid_BT.shape[1]),
            )
            .map(as_bool)
            .map(lambda mask: mask.to(self.device))  # type: ignore[arg-type, return-value]
        )

    def _validate(
        self, source: BatchSource, epoch: int, tau: float | None = None
    ) -> tuple[Selected, dict[str, float]]:
        """Return tau and score of the epoch on one split, and every metric with that tau.

        Args:
            source: the split.
            epoch: for messages.
            tau: taken as it is if given, otherwise chosen on this split.

        Raises:
            TrainingError: if a prediction is NaN or the score is undefined.
        """
        spec = self.spec
        assert source.labels_N is not None
        predictions = [
            self.predictor.predict(source, masks, recurring=True)
            for masks in self.masks[id(source)]
        ]
        # The last update may have broken the weights: an argmax over NaN would still give a score.
        if any(np.isnan(each.log_probs_NC).any() for each in predictions):
            raise TrainingError(
                f"epoch {epoch}, after step {self.steps_per_epoch}: predictions on the "
                f"{source.split.name} split are NaN; lower optimizer.lr or set "
                "training.gradient_clip"
            )
        chosen = select_tau(predictions, source.labels_N, spec.selection_metric, spec.maci)
        if not math.isfinite(chosen.score):
            raise TrainingError(
                f"epoch {epoch}, after step {self.steps_per_epoch}: {spec.selection_metric} on the "
                f"{source.split.name} split is {chosen.score}: no utterance there counts for it; "
                "choose another selection.metric"
            )
        if tau is not None:
            chosen = Selected(tau, float("nan"))
        valid: dict[str, float] = {}
        per_rate = [
            all_metrics(each.scores(chosen.tau, spec.maci.counterfactual_space), source.labels_N)
            for each in predictions
        ]
        for condition, metrics in zip(selection_conditions(spec), per_rate, strict=True):
            valid |= {f"{name}@{condition.rate:g}": value for name, value in metrics.items()}
        for name in per_rate[0]:
            valid[name] = float(np.mean([metrics[name] for metrics in per_rate]))
        return chosen, valid


def selection_conditions(spec: RunSpec) -> list[Condition]:
    """Return the conditions whose mean score selects the epoch: the training protocol's rates."""
    missing = spec.missing
    if missing.protocol in ("none", "smm"):
        # These have no rate: everything is there, or exactly the kept set is.
        return [Condition(missing.protocol, 0.0, missing.kept)]
    return [Condition(missing.protocol, rate) for rate in spec.selection.rates]
