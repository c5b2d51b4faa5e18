"""The two-step update of one batch (Eq. 28-30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cider.errors import TrainingError
from cider.losses import LossTerms, distillation_terms, task_loss
from cider.modality import Modality, PerModality
from cider.training.workers import ALONE
from cider.views import incomplete_view

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor

    from cider.data.batch import Batch, TokenIds
    from cider.models.emotion import EmotionModel
    from cider.spec import LossConfig, TrainingConfig
    from cider.training.workers import Workers


class TwoStepUpdate:
    """Step 1 learns from the complete view, step 2 from the incomplete view and the distillation.

    The targets of step 2 are the complete view's outputs of step 1, before its update.

    Args:
        model: the whole model, in training mode.
        optimizer: over all its trainable parameters.
        training: gradient clearing and clipping.
        weights: weights of the distillation terms.
        token_ids: special tokens of the corpus.
        workers: who shares every batch; all of them call the update with their part of it.
    """

    def __init__(
        self,
        model: EmotionModel,
        optimizer: torch.optim.Optimizer,
        training: TrainingConfig,
        weights: LossConfig,
        token_ids: TokenIds,
        workers: Workers = ALONE,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.training = training
        self.weights = weights
        self.token_ids = token_ids
        self.workers = workers
        self.parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]

    def __call__(self, batch: Batch, observed: PerModality[BoolTensor]) -> dict[str, float]:
        """Update the model and return the value of every loss term, over the whole batch.

        Raises:
            TrainingError: if a loss is not finite; the model is not updated with it.
            WorkerLostError: if another worker is gone.
        """
        labels_B = batch.labels_B
        assert labels_B is not None
        self.optimizer.zero_grad(set_to_none=True)
        complete = self.model(batch.complete)
        complete_loss = task_loss(complete.log_probs_BC, labels_B) * batch.share
        first = {"task_complete": complete_loss}
        num_dropped = None
        if self.workers.count > 1:
            # What step 2 divides by has to be summed over workers before: it travels with step 1.
            first |= _dropped(batch, observed)
        first = self._step(first, "task_complete")
        if self.workers.count > 1:
            num_dropped = PerModality(*(first.pop(_dropped_name(each)) for each in Modality))

        if self.training.clear_gradients:
            self.optimizer.zero_grad(set_to_none=True)
        incomplete = self.model(incomplete_view(batch.complete, observed, self.token_ids))
        terms = distillation_terms(
            incomplete,
            complete,
            batch.complete,
            observed,
            labels_B,
            self.weights,
            share=batch.share,
            num_dropped=num_dropped,
        )
        second = self._step({**_named(terms), "total": terms.total(self.weights)}, "total")
        return {name: float(value.detach()) for name, value in (first | second).items()}

    def _step(self, values: dict[str, Tensor], loss: str) -> dict[str, Tensor]:
        """Take one step down a loss; return the whole batch's values."""
        values = self.workers.backward(values, loss, self.parameters)
        if not torch.isfinite(values[loss]):
            facts = ", ".join(
                f"{name}={float(value.detach()):.4g}" for name, value in values.items()
            )
            raise TrainingError(
                f"the loss is not finite ({facts}); lower optimizer.lr, set "
                "training.gradient_clip, or check the features with `cider-platform data verify`"
            )
        if self.training.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.gradient_clip)
        self.optimizer.step()
        return values


def _dropped(batch: Batch, observed: PerModality[BoolTensor]) -> dict[str, Tensor]:
    """Return how many valid positions of each modality were dropped, scalars."""
    return {
        _dropped_name(modality): (batch.complete.valid[modality] & ~observed[modality]).sum()
        for modality in Modality
    }


def _dropped_name(modality: Modality) -> str:
    return f"dropped_{modality.value}"


def _named(terms: LossTerms) -> dict[str, Tensor]:
    return {
        "task_incomplete": terms.task,
        "reconstruction": terms.reconstruction,
        "attention": terms.attention,
        "joint": terms.joint,
    }
