"""Parameter groups and the optimiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from cider.models.emotion import EmotionModel
    from cider.spec import OptimizerConfig

_NO_DECAY = ("bias", "LayerNorm.weight", "layer_norm.weight", "norm.weight")


def parameter_groups(
    model: EmotionModel, config: OptimizerConfig, *, from_scratch: bool
) -> list[dict[str, Any]]:
    """Return the optimiser's groups: text encoder with and without decay, everything else.

    Args:
        model: the whole model; frozen parameters are in no group.
        config: rates and decays.
        from_scratch: the encoder is not pre-trained and learns at ``lr`` instead of ``text_lr``.

    Raises:
        AssertionError: if a trainable parameter is not in exactly one group.
    """
    text_lr = config.lr if from_scratch else config.text_lr
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.text_encoder.named_parameters():
        if parameter.requires_grad:
            (kept if name.endswith(_NO_DECAY) else decayed).append(parameter)
    others = [
        parameter
        for module in (model.backbone, model.head)
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": text_lr, "weight_decay": config.text_weight_decay},
        {"params": kept, "lr": text_lr, "weight_decay": 0.0},
        {"params": others, "lr": config.lr, "weight_decay": config.weight_decay},
    ]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(trainable), "a parameter is in no group, or in two"
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: EmotionModel, config: OptimizerConfig, *, from_scratch: bool
) -> torch.optim.Optimizer:
    """Return Adam (L2 decay in the gradient, as published) or AdamW over the groups."""
    optimizer = torch.optim.AdamW if config.decoupled_weight_decay else torch.optim.Adam
    return optimizer(parameter_groups(model, config, from_scratch=from_scratch), fused=True)
