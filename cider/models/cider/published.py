"""Parameter names of the published implementation, mapped to ours.

The published state dict calls the modalities l, a and v, keeps query, key and value of an alignment
block in one matrix, and holds constants (position table, version) that are no parameters here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cider.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

_MODALITY = {"l": "text", "t": "text", "a": "audio", "v": "vision"}
_LAYER_PARTS = {
    "self_attn.in_proj_weight": "attention.scores.joint.weight",
    "self_attn.in_proj_bias": "attention.scores.joint.bias",
    "layer_norms.0.": "attention_norm.",
    "layer_norms.1.": "feed_forward_norm.",
    "fc1.": "expand.",
    "fc2.": "contract.",
    "self_attn.final_out_proj.": "attention.final.",
    "self_attn.out_proj.": "attention.subset_out.",
    "self_attn.s_l.": "attention.summary.0.",
    "self_attn.s_a.": "attention.summary.1.",
    "self_attn.s_v.": "attention.summary.2.",
}
_RULES: tuple[tuple[str, str], ...] = (
    (r"text_model\.model\.(.+)", r"text_encoder.backbone.\1"),
    (r"proj_([lav])\.(.+)", r"backbone.projections.{m}.\2"),
    (r"([tav])\.((?:weight|bias)_.+)", r"backbone.recurrences.{m}.\2"),
    (r"multimodal_transformer\.layer_norm\.(.+)", r"backbone.encoder.norm.\1"),
    (r"attn_([lav])\.attention\.0\.(.+)", r"backbone.pools.{m}.hidden.\2"),
    (r"attn_([lav])\.attention\.2\.(.+)", r"backbone.pools.{m}.score.\2"),
    (r"proj1\.(.+)", r"backbone.joint_hidden.\1"),
    (r"proj2\.(.+)", r"backbone.joint_out.\1"),
    (r"recon_text\.(.+)", r"backbone.text_reconstruction.\1"),
    (r"recon_(audio|vision)\.0\.(.+)", r"backbone.frame_reconstructions.\1.over_time.\2"),
    (r"recon_(audio|vision)\.1\.(.+)", r"backbone.frame_reconstructions.\1.features.\2"),
    (r"cls_encoders_([lav])\.(.+)", r"head.encoders.{m}.\2"),
    (r"classifiers\.(.+)", r"head.classifiers.\1"),
    (r"([av])_compress\.out_proj\.(.+)", r"backbone.alignments.{m}.out.\2"),
)
_NO_PARAMETER = (
    r"multimodal_transformer\.(version|embed_positions\..+)",
    r"text_model\.model\.pooler\..+",
    r"text_model\.model\.embeddings\.(position_ids|token_type_ids)",
)
_ALIGNMENT = re.compile(r"([av])_compress\.in_proj_(weight|bias)")
_LAYER = re.compile(r"multimodal_transformer\.layers\.(\d+)\.(.+)")


def _renamed(name: str) -> str | None:
    """Return our name of a published parameter, or None if we have no such parameter."""
    if any(re.fullmatch(pattern, name) for pattern in _NO_PARAMETER):
        return None
    if layer := _LAYER.fullmatch(name):
        for theirs, ours in _LAYER_PARTS.items():
            if layer[2].startswith(theirs):
                return f"backbone.encoder.layers.{layer[1]}.{ours}{layer[2][len(theirs) :]}"
    for pattern, replacement in _RULES:
        if match := re.fullmatch(pattern, name):
            modality = _MODALITY.get(match[1], "")
            return match.expand(replacement.replace("{m}", modality))
    raise StoreError(
        f"the checkpoint holds a parameter {name!r} that CIDer does not have; only "
        "checkpoints of the published CIDer model can be imported"
    )


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a published state dict under our names.

    Args:
        state: tensors by published name; a leading ``module.`` is taken off. Position tables,
            version marks and the pooler, which nothing reads, are left out.

    Raises:
        StoreError: if a name is not one of the published model's.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        if match := _ALIGNMENT.fullmatch(name):
            modality, kind = _MODALITY[match[1]], match[2]
            parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            for part, chunk in parts:
                ours[f"backbone.alignments.{modality}.{part}.{kind}"] = chunk.clone()
        elif (renamed := _renamed(name)) is not None:
            ours[renamed] = tensor
    return ours


@dataclass(frozen=True, slots=True)
class PublishedShape:
    """What the tensors of a published checkpoint say about its model."""

    width: int
    layers: int
    num_classes: int
    cross_dataset: bool
    """True: the class encoders of audio and vision have LayerNorms between their layers."""
    text_length: int
    audio_length: int
    vision_length: int
    audio_width: int
    vision_width: int


def published_shape(state: dict[str, Tensor]) -> PublishedShape:
    """Read the sizes of a published model off its tensors.

    Raises:
        StoreError: if tensors that every published model has are missing.
    """
    try:
        (audio_length, text_length), (vision_length, _) = (
            state[f"recon_{name}.0.weight"].shape for name in ("audio", "vision")
        )
        return PublishedShape(
            width=state["proj_l.weight"].shape[0],
            layers=sum(name.endswith("self_attn.in_proj_weight") for name in state),
            num_classes=sum(
                re.fullmatch(r"classifiers\.\d+\.bias", name) is not None for name in state
            ),
            cross_dataset="cls_encoders_a.3.weight" in state,
            text_length=text_length,
            audio_length=audio_length,
            vision_length=vision_length,
            audio_width=state["proj_a.weight"].shape[1],
            vision_width=state["proj_v.weight"].shape[1],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise StoreError(
            f"the checkpoint is not one of the published CIDer model: {error} is missing"
        ) from error
