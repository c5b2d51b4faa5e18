"""The runs that benchmarks assemble, and their text encoders.

Shapes: B batch, T text steps, F encoder width.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from corpora import DATASET
from torch import nn

from cider.models.cider.config import Config
from cider.modules.text_cache import TextCache
from cider.spec import DataConfig, RunSpec, SelectionConfig, TextEncoderConfig, TrainingConfig

if TYPE_CHECKING:
    import argparse

    from torch import Tensor

    from cider.models.emotion import EmotionModel

ENCODERS = {
    "tiny": TextEncoderConfig(source="scratch"),
    # Frozen, and its layer is taken out again: see `leave_encoder_out`.
    "none": TextEncoderConfig(source="scratch", layers=1, width=768, heads=12, fine_tune=False),
    "bert-base-shape": TextEncoderConfig(source="scratch", layers=12, width=768, heads=12),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a run."""
    parser.add_argument(
        "--encoder",
        choices=list(ENCODERS),
        default="tiny",
        help="tiny: two layers of width 64; none: a look-up of width 768, frozen; "
        "bert-base-shape: BERT-base with random weights, fine-tuned",
    )
    parser.add_argument("--frozen", action="store_true", help="do not train the text encoder")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2, help="fusion layers")
    parser.add_argument("--heads", type=int, default=4, help="fusion heads")


def run_spec(args: argparse.Namespace, **training: object) -> RunSpec:
    """Return the spec of a run over the corpus ``speed``; ``training`` changes training fields."""
    encoder = ENCODERS[args.encoder]
    return RunSpec(
        data=DataConfig(dataset=DATASET),
        model=Config(layers=args.layers, heads=args.heads),
        text_encoder=replace(encoder, fine_tune=encoder.fine_tune and not args.frozen),
        training=replace(TrainingConfig(batch_size=args.batch_size), **training),
        selection=SelectionConfig(rates=(0.0,)),
        seed=args.seed,
    )


class _LookUp(nn.Module):
    """An encoder that costs nothing: one fixed vector per token id."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=width, vocab_size=vocabulary)
        self.register_buffer("table_VF", torch.randn(vocabulary, width), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        del attention_mask  # a token's vector does not depend on the others
        return SimpleNamespace(last_hidden_state=self.table_VF[input_ids])


def leave_encoder_out(model: EmotionModel) -> None:
    """Replace the text encoder by a look-up of the same width; call it before the optimiser."""
    encoder = model.text_encoder
    encoder.backbone = _LookUp(encoder.vocabulary_size, encoder.width)
    encoder.cache = TextCache(0)  # to look up what is kept is no cheaper than to look up
