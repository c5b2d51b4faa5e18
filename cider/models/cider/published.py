"""Parameter names of the published implementation, mapped to ours and back.

The published state dict calls the modalities l, a and v, keeps query, key and value of an alignment
block in one matrix, and holds constants (position table, version) that are no parameters here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from cider.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

_MODALITY = {"l": "text", "t": "text", "a": "audio", "v": "vision"}
_MODALITY_NAME = {"text": "text", "audio": "audio", "vision": "vision"}
_SUMMARY = {"l": "0", "a": "1", "v": "2"}
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
        f"the checkpoint holds a parameter {name!r} that CIDer does not have; only checkpoints of the "
        "published CIDer model can be imported"
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


def published_name(name: str) -> str:
    """Return where one of our parameters lies in the published model, for one-to-one parameters.

    Raises:
        KeyError: if the published model has no parameter that is exactly this one.
    """
    for theirs in _published_candidates(name):
        if _renamed(theirs) == name:
            return theirs
    raise KeyError(name)


def _published_candidates(name: str) -> list[str]:
    """Return published names that may map to ``name``: every rule read backwards."""
    candidates = []
    if match := re.fullmatch(r"backbone\.encoder\.layers\.(\d+)\.(.+)", name):
        candidates += [
            f"multimodal_transformer.layers.{match[1]}.{theirs}{match[2][len(ours) :]}"
            for theirs, ours in _LAYER_PARTS.items()
            if match[2].startswith(ours)
        ]
    tail = name.split(".")[2:]
    for letter, modality in _MODALITY.items():
        if modality in name.split("."):
            suffix = name.split(f".{modality}.")[-1]
            candidates += [f"proj_{letter}.{suffix}", f"{letter}.{suffix}"]
    candidates += [f"classifiers.{'.'.join(tail)}", f"text_model.model.{'.'.join(tail)}"]
    return candidates


def positions_of(state: dict[str, Tensor]) -> Tensor | None:
    """Return the published position table (N, D), if the checkpoint holds it."""
    table = state.get("multimodal_transformer.embed_positions.pe")
    return None if table is None else torch.as_tensor(table)[0]
