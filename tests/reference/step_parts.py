"""A small model, batch and optimiser for tests of the two-step update."""

import numpy as np
import torch

from cider.data.batch import Batch, View
from cider.modality import PerModality
from cider.models.cider.config import Config
from cider.models.emotion import EmotionModel, build_head
from cider.models.interface import InputShapes
from cider.modules.text import TextEncoder, build_from_scratch
from cider.spec import MaciConfig, TextEncoderConfig

WIDTHS = PerModality(16, 5, 7)
SHAPES = {
    "unaligned": InputShapes(WIDTHS, PerModality(24, 30, 40), aligned=False),
    "aligned": InputShapes(WIDTHS, PerModality(24, 24, 24), aligned=True),
}
NO_DROPOUT = {
    f"{name}_dropout": 0.0 for name in ("attention", "embedding", "output", "relu", "residual")
}
NUM_SAMPLES = 30


def model_of(shapes, fields, dtype, *, fine_tune=True, cache_mib=512):
    """Return a small model without dropout, the same at every call."""
    torch.manual_seed(5)
    backbone = Config(width=16, heads=2, layers=2, **NO_DROPOUT, **fields).build(shapes)
    encoder = TextEncoderConfig(source="scratch", width=16, layers=1, dropout=0.0)
    text = TextEncoder(
        build_from_scratch(encoder, 120, 24), fine_tune=fine_tune, cache_mib=cache_mib
    )
    features = WIDTHS.map(lambda width: torch.rand(3, width))
    head = build_head(
        backbone, MaciConfig(), features, torch.tensor([0.5, 0.2, 0.3]), layer_norm=False
    )
    return EmotionModel(text, backbone, head).to(dtype).train()


def batch_of(shapes, dtype, least=1):
    """Return a batch of very different lengths, and what is observed of it."""
    rng = np.random.default_rng(2)
    text = np.minimum(2 + rng.geometric(0.2, NUM_SAMPLES), shapes.lengths.text)
    audio = np.minimum(rng.integers(least, 3, NUM_SAMPLES) * text, shapes.lengths.audio)
    vision = np.minimum(rng.integers(1, 4, NUM_SAMPLES) * text, shapes.lengths.vision)
    if shapes.aligned:
        audio = vision = text
    lengths = [torch.from_numpy(each) for each in (text, audio, vision)]
    valid = [torch.arange(int(each.max())) < each[:, None] for each in lengths]
    ids = torch.from_numpy(rng.integers(104, 120, valid[0].shape)) * valid[0]
    frames = [
        torch.from_numpy(rng.standard_normal((*mask.shape, width))).to(dtype) * mask[..., None]
        for mask, width in zip(valid[1:], (5, 7), strict=True)
    ]
    labels = torch.from_numpy(rng.integers(0, 3, NUM_SAMPLES))
    observed = PerModality(
        *(mask & torch.from_numpy(rng.random(mask.shape) > 0.4) for mask in valid)
    )
    return Batch(np.arange(NUM_SAMPLES), View(ids, *frames, PerModality(*valid)), labels), observed


def descent(model):
    """Return plain gradient descent."""
    # Adam divides by the gradient's own size, which makes rounding of tiny gradients large.
    return torch.optim.SGD(model.parameters(), lr=0.05)
