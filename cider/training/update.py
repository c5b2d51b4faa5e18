"""The two-step update of one batch (Eq. 28-30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cider.errors import TrainingError
from cider.losses import LossTerms, distillation_terms, task_loss
from cider.views import incomplete_view

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor

    from cider.data.batch import Batch, TokenIds
    from cider.modality import PerModality
    from cider.models.emotion import EmotionModel
    from cider.spec import LossConfig, TrainingConfig


class TwoStepUpdate:
    """Step 1 learns from the complete view, step 2 from the incomplete view and the distillation.

    The targets of step 2 are the complete view's outputs of step 1, before its update.

    Args:
        model: the whole model, in training mode.
        optimizer: over all its trainable parameters.
        training: gradient clearing and clipping.
        weights: weights of the distillation terms.
        token_ids: special tokens of the corpus.
    """

    def __init__(
        self,
        model: EmotionModel,
        optimizer: torch.optim.Optimizer,
        training: TrainingConfig,
        weights: LossConfig,
        token_ids: TokenIds,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.training = training
        self.weights = weights
        self.token_ids = token_ids

    def __call__(self, batch: Batch, observed: PerModality[BoolTensor]) -> dict[str, float]:
        """Update the model and return the value of every loss term.

        Raises:
            TrainingError: if a loss is not finite; the model is not updated with it.
        """
        labels_B = batch.labels_B
        assert labels_B is not None
        self.optimizer.zero_grad(set_to_none=True)
        complete = self.model(batch.complete)
        complete_loss = task_loss(complete.log_probs_BC, labels_B)
        self._step(complete_loss, {"task_complete": complete_loss})

        if self.training.clear_gradients:
            self.optimizer.zero_grad(set_to_none=True)
        incomplete = self.model(incomplete_view(batch.complete, observed, self.token_ids))
        terms = distillation_terms(
            incomplete, complete, batch.complete, observed, labels_B, self.weights
        )
        total = terms.total(self.weights)
        values = {"task_complete": complete_loss, **_named(terms), "total": total}
        self._step(total, values)
        return {name: float(value.detach()) for name, value in values.items()}

    def _step(self, loss: Tensor, values: dict[str, Tensor]) -> None:
        if not torch.isfinite(loss):
            facts = ", ".join(
                f"{name}={float(value.detach()):.4g}" for name, value in values.items()
            )
            raise TrainingError(
                f"the loss is not finite ({facts}); lower optimizer.lr, set "
                "training.gradient_clip, or check the features with `cider-platform data verify`"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if self.training.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.gradient_clip)
        self.optimizer.step()


def _named(terms: LossTerms) -> dict[str, Tensor]:
    return {
        "task_incomplete": terms.task,
        "reconstruction": terms.reconstruction,
        "attention": terms.attention,
        "joint": terms.joint,
    }
