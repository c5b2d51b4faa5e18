"""Predictions of a model under missing data, and what is chosen from them on validation.

Shapes: N utterances, B batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.counterfactual import choose_tau, subtract
from cider.metrics import metrics_of_task
from cider.missing import evaluation_masks, released_masks
from cider.training.groups import cut_view, rows_by_length
from cider.training.workers import ALONE
from cider.views import counterfactual_view, incomplete_view

if TYPE_CHECKING:
    from cider.condition import Condition
    from cider.data.batch import Batch, TokenIds, View
    from cider.data.loader import BatchSource
    from cider.modality import PerModality
    from cider.models.emotion import EmotionModel
    from cider.spec import MaciConfig, MissingConfig
    from cider.training.workers import Workers


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says of every utterance of a split under one condition, in stored order."""

    log_probs_NC: np.ndarray
    """float64 log-probabilities of the factual text."""
    counterfactual_NC: np.ndarray | None
    """float64 log-probabilities of the counterfactual text; None without that part of MACI."""

    def scores(self, tau: float, space: str) -> np.ndarray:
        """Return debiased scores (N, C) (Eq. 25); their argmax is the prediction."""
        if self.counterfactual_NC is None:
            return self.log_probs_NC
        return subtract(self.log_probs_NC, self.counterfactual_NC, tau, space)


class Masks:
    """Which positions are observed, per batch, for one split and condition."""

    def __init__(
        self, source: BatchSource, condition: Condition, missing: MissingConfig, seed: int
    ) -> None:
        self.source = source
        self.condition = condition
        self.seed = seed
        self.split_masks: PerModality[np.ndarray] | None = None
        if missing.mask_source == "released" and condition.protocol != "none":
            # The published code draws for a whole split at once.
            self.split_masks = released_masks(
                condition.protocol,
                condition.rate,
                source.split.lengths,
                pad_to=source.longest,
                kept=condition.kept,
            )

    def of(self, batch: Batch) -> PerModality[torch.BoolTensor]:
        """Return True where a position of the batch is kept."""
        if self.split_masks is not None:
            widths = batch.complete.valid.map(lambda valid_BT: valid_BT.shape[1])
            rows = self.split_masks.zip_map(
                widths, lambda mask_NT, width: mask_NT[batch.index_B, :width]
            )
            return rows.map(as_bool)
        lengths = self.source.split.lengths.map(lambda lengths_N: lengths_N[batch.index_B])
        return evaluation_masks(
            self.condition.protocol,
            self.condition.rate,
            lengths,
            batch.index_B,
            seed=self.seed,
            pad_to=batch.complete.valid.map(lambda valid_BT: valid_BT.shape[1]),
            kept=self.condition.kept,
        ).map(as_bool)


def as_bool(mask: np.ndarray) -> torch.BoolTensor:
    """Return a NumPy mask as a boolean tensor."""
    tensor: torch.BoolTensor = torch.from_numpy(np.ascontiguousarray(mask))  # type: ignore[assignment]
    return tensor


class Predictor:
    """Runs a model over a split.

    Args:
        model: the whole model.
        token_ids: special tokens of the corpus.
        kept_words: boolean (vocabulary,), True for special tokens and bias words; None leaves the
            counterfactual view out.
        device: where the model lies.
        batch_size: utterances per batch.
        workers: who shares the batches; all of them call ``predict``, and get all predictions.
    """

    def __init__(
        self,
        model: EmotionModel,
        *,
        token_ids: TokenIds,
        kept_words: torch.Tensor | None,
        device: torch.device,
        batch_size: int,
        workers: Workers = ALONE,
    ) -> None:
        self.model = model
        self.token_ids = token_ids
        self.kept_words = None if kept_words is None else kept_words.to(device)
        self.device = device
        self.batch_size = batch_size
        self.workers = workers

    @torch.no_grad()
    def predict(self, source: BatchSource, masks: Masks, *, recurring: bool = False) -> Predictions:
        """Return predictions for every utterance; the model's mode is put back afterwards.

        Args:
            source: the split.
            masks: what is observed of it.
            recurring: True if the same is asked again, after another epoch of training.
        """
        was_training = self.model.training
        self.model.eval()
        index: list[np.ndarray] = []
        tables: list[list[torch.Tensor]] = []
        # Whole batches to each worker: a prediction then has the very bits it has in one process.
        for cpu_batch in source.batches(self.batch_size, turn=self.workers.place):
            observed = masks.of(cpu_batch).map(lambda mask: mask.to(self.device))
            view = incomplete_view(
                cpu_batch.to(self.device).complete,
                observed,  # type: ignore[arg-type]
                self.token_ids,
            )
            index.append(cpu_batch.index_B)
            tables.append(self._log_probs(view, recurring=recurring))
        self.model.train(was_training)
        found = [
            self.workers.gather([tables_K[kind] for tables_K in tables], index, len(source)).numpy()
            for kind in range(1 if self.kept_words is None else 2)
        ]
        return Predictions(found[0], found[1] if len(found) > 1 else None)

    def _log_probs(self, view: View, *, recurring: bool) -> list[torch.Tensor]:
        """Return float64 log-probabilities (B, C) of a view and, if asked for, its counterfactual.

        Where the model reads no padding, utterances of similar length are read together without it.
        """
        if self.model.backbone.reads_padding:
            parts, row_B = [view], None
        else:
            cut = rows_by_length(view)
            parts = [cut_view(view, row_R, steps) for row_R, steps in cut]
            row_B = torch.cat([row_R for row_R, _ in cut])
        kinds = [parts]
        if self.kept_words is not None:
            kinds.append(
                [counterfactual_view(part, self.kept_words, self.token_ids) for part in parts]
            )
        texts = [part for kind in kinds for part in kind]
        states = iter(self.model.encode(texts, recurring=recurring))
        found = []
        for kind in kinds:
            log_probs_BC = torch.cat(
                [self.model.log_probs(part, next(states)).double() for part in kind]
            )
            if row_B is not None:
                log_probs_BC = log_probs_BC[torch.argsort(row_B)]
            found.append(log_probs_BC)
        return found


@dataclass(frozen=True, slots=True)
class Selected:
    """Tau chosen on a labelled split, and the score it reaches there."""

    tau: float
    score: float


def select_tau(
    predictions: list[Predictions], labels_N: np.ndarray, metric: str, maci: MaciConfig
) -> Selected:
    """Return the tau that maximises the mean metric over several conditions of one split.

    Without a counterfactual view tau is 0. Among equals the smallest tau is taken.
    """
    if any(each.counterfactual_NC is None for each in predictions):
        values = [metric_value(each.log_probs_NC, labels_N, metric) for each in predictions]
        return Selected(0.0, float(np.mean(values)))
    tau, score = choose_tau(
        [each.log_probs_NC for each in predictions],
        [each.counterfactual_NC for each in predictions],  # type: ignore[misc]
        labels_N,
        metric,
        maci.counterfactual_space,
    )
    return Selected(tau, score)


def metric_value(scores_NC: np.ndarray, labels_N: np.ndarray, metric: str) -> float:
    """Return one metric by name."""
    task = "three_class" if scores_NC.shape[1] == 3 else "seven_class"
    return metrics_of_task(task)[metric](scores_NC, labels_N)


def all_metrics(scores_NC: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
    """Return every metric of the task the scores belong to, by name."""
    task = "three_class" if scores_NC.shape[1] == 3 else "seven_class"
    return {name: function(scores_NC, labels_N) for name, function in metrics_of_task(task).items()}
