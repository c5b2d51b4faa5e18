"""The two-step update of one batch (Eq. 28-30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cider.errors import TrainingError
from cider.losses import LossTerms, distillation_terms, task_loss
from cider.modality import Modality, PerModality
from cider.training.groups import by_length, whole_batch
from cider.training.workers import ALONE
from cider.views import incomplete_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import BoolTensor, Tensor

    from cider.data.batch import Batch, TokenIds, View
    from cider.models.emotion import EmotionModel
    from cider.models.interface import ModelOutput
    from cider.spec import LossConfig, TrainingConfig
    from cider.training.groups import Group
    from cider.training.workers import Workers


class TwoStepUpdate:
    """Step 1 learns from the complete view, step 2 from the incomplete view and the distillation.

    The targets of step 2 are the complete view's outputs of step 1, before its update.

    Args:
        model: the whole model, in training mode.
        optimizer: over all its trainable parameters.
        training: padding, gradient clearing and clipping.
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
        split = by_length if self.training.padding == "groups" else whole_batch
        groups = split(batch, observed)
        dropped = _dropped(batch, observed)
        self.optimizer.zero_grad(set_to_none=True)
        targets: list[ModelOutput] = []
        # What step 2 divides by has to be summed over workers before: it travels with step 1.
        first = self._step(self._complete(groups, targets), "task_complete", dropped)
        num_dropped = PerModality(*(first.pop(_dropped_name(each)) for each in Modality))

        if self.training.clear_gradients:
            self.optimizer.zero_grad(set_to_none=True)
        second = self._step(self._incomplete(groups, targets, num_dropped), "total")
        return {name: float(value) for name, value in (first | second).items()}

    def _complete(
        self, groups: list[Group], targets: list[ModelOutput]
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the loss of every group's complete view, and append what step 2 compares with."""
        texts = _EncodedTexts(self.model, [group.view for group in groups], recurring=True)
        for group, text_RTF in zip(groups, texts.leaves, strict=True):
            output = self.model.read(group.view, text_RTF, reconstruct=False)
            assert output.log_probs_BC is not None
            targets.append(output.detached())
            yield {"task_complete": task_loss(output.log_probs_BC, group.labels_R) * group.share}
        texts.backward()

    def _incomplete(
        self, groups: list[Group], targets: list[ModelOutput], num_dropped: PerModality[Tensor]
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the loss terms of every group's incomplete view."""
        views = [incomplete_view(group.view, group.observed, self.token_ids) for group in groups]
        texts = _EncodedTexts(self.model, views, recurring=False)
        for group, view, text_RTF, complete in zip(
            groups, views, texts.leaves, targets, strict=True
        ):
            terms = distillation_terms(
                self.model.read(view, text_RTF, reconstruct=self.weights.reconstruction > 0),
                complete,
                group.view,
                group.observed,
                group.labels_R,
                self.weights,
                share=group.share,
                num_dropped=num_dropped,
            )
            yield {**_named(terms), "total": terms.total(self.weights)}
        texts.backward()

    def _step(
        self,
        parts: Iterator[dict[str, Tensor]],
        loss: str,
        counts: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Take one step down the sum of a loss over parts; return the whole batch's values."""
        values = self.workers.backward(parts, loss, self.parameters, counts or {})
        if not torch.isfinite(values[loss]):
            facts = ", ".join(f"{name}={float(value):.4g}" for name, value in values.items())
            raise TrainingError(
                f"the loss is not finite ({facts}); lower optimizer.lr, set "
                "training.gradient_clip, or check the features with `cider-platform data verify`"
            )
        if self.training.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.gradient_clip)
        self.optimizer.step()
        return values


class _EncodedTexts:
    """The texts of all groups, encoded together; their gradients gather until ``backward``."""

    def __init__(self, model: EmotionModel, views: list[View], *, recurring: bool) -> None:
        self._states = model.encode(views, recurring=recurring)
        self.leaves = [
            states_RTF.detach().requires_grad_(states_RTF.requires_grad)
            for states_RTF in self._states
        ]

    def backward(self) -> None:
        """Carry what the groups' losses say of the texts into the encoder, once for all."""
        read = [
            (states_RTF, leaf_RTF)
            for states_RTF, leaf_RTF in zip(self._states, self.leaves, strict=True)
            if leaf_RTF.grad is not None
        ]
        if read:
            torch.autograd.backward(
                [states_RTF for states_RTF, _ in read], [leaf_RTF.grad for _, leaf_RTF in read]
            )


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
