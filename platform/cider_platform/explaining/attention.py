"""What a run's fusion attends to, per modality subset: of one utterance, or on average of a split.

Shapes: B batch, H heads, L fused steps, Q queries and S keys of a subset, M modalities (3), G
subsets of the model (7, or 1 of a plain transformer).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.errors import CiderError, UsageError
from cider.modality import Modality
from cider.modules.subset_weights import key_shares, subset_steps, subset_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.condition import Condition
    from cider.data.batch import View
    from cider.models.interface import FusionScores
    from cider.spec import Split
    from cider_platform.explaining.opened import OpenedRun, Sample

_ROWS = 16
"""Utterances whose scores are held at once."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the model's attention is looked at."""

    layer: int
    """From 1; 0 is the last one."""
    head: int
    """From 1; 0 is the mean over heads."""


@dataclass(frozen=True, slots=True)
class SubsetMap:
    """The attention of one modality subset to one utterance; padding is left out."""

    subset: tuple[Modality, ...]
    weights_QS: np.ndarray
    """float64; a row adds up to 1, or to less where the model attends to padding."""
    steps: tuple[int, ...]
    """Steps of each modality of the subset, in its order."""

    def relative(self) -> np.ndarray:
        """Return weights (Q, S) as multiples of an even attention to all keys: 1 = even."""
        relative_QS: np.ndarray = self.weights_QS * self.weights_QS.shape[1]
        return relative_QS


@dataclass(frozen=True, slots=True)
class Shares:
    """How the attention of each modality's queries divides among modalities, per subset."""

    subsets: tuple[tuple[Modality, ...], ...]
    shares_GMM: np.ndarray
    """float64, query by key modality; NaN where one of them is not in the subset, or where no
    utterance has a step of it. Rows add up to 1."""
    utterances: int
    """How many utterances it is the mean of."""


@dataclass(frozen=True, slots=True)
class SampleAttention:
    """Attention of one utterance."""

    maps: list[SubsetMap]
    shares: Shares
    layer: int
    """From 1."""
    head: int
    """From 1; 0 is the mean over heads."""
    words: list[int]
    """Token ids of the text steps, start and end token included."""
    frames: dict[Modality, np.ndarray]
    """What each text step reads of the frames of audio and vision, float64 (steps, frames), where
    they are brought to text length (WSAM); otherwise empty."""


def attention_of(
    opened: OpenedRun,
    sample: Sample,
    condition: Condition,
    choice: Choice,
    seed: int | None = None,
) -> SampleAttention:
    """Return what a run attends to in one utterance.

    Args:
        opened: the run.
        sample: the utterance.
        condition: what is missing.
        choice: layer and head.
        seed: of the masks; None: the run's.

    Raises:
        CiderError: if the run's model has no fusion attention.
        UsageError: for a layer or head it does not have.
    """
    view, _ = opened.view(sample, condition, seed)
    found = _scores(opened, view)
    layer, scores_BHLL = _chosen(found, choice)
    lengths = list(found.lengths)
    valid_L = torch.cat([valid_BT[0] for valid_BT in found.valid]).cpu()
    maps = []
    for subset in found.subsets:
        steps_Q = subset_steps(lengths, subset)
        weights_QS = subset_weights(scores_BHLL, lengths, subset)[0].mean(dim=0).double().cpu()
        content_Q = valid_L[steps_Q]
        maps.append(
            SubsetMap(
                subset,
                weights_QS[content_Q][:, content_Q].numpy(),
                tuple(int(found.valid[modality][0].sum()) for modality in subset),
            )
        )
    sums_GMM, counts_GMM = _sums(found, scores_BHLL)
    return SampleAttention(
        maps=maps,
        shares=_shares(found, sums_GMM, counts_GMM, 1),
        layer=layer,
        head=choice.head,
        words=view.token_ids_BT[view.valid.text].tolist(),
        frames=_frames(found, view),
    )


def _frames(found: FusionScores, view: View) -> dict[Modality, np.ndarray]:
    if found.alignment is None:
        return {}
    steps_T = view.valid.text[0]
    return {
        modality: weights_BTS[0][steps_T][:, view.valid[modality][0]].double().cpu().numpy()
        for modality, weights_BTS in zip(
            (Modality.AUDIO, Modality.VISION), found.alignment, strict=True
        )
    }


def mean_shares(
    opened: OpenedRun,
    split: Split,
    condition: Condition,
    choice: Choice,
    on_batch: Callable[[int, int], None] | None = None,
) -> Shares:
    """Return how attention divides among modalities, as the mean over a split's utterances.

    Every utterance counts alike, whatever its length; heads and an utterance's queries are averaged
    first. No label is read.

    Args:
        opened: the run.
        split: which utterances.
        condition: what is missing.
        choice: layer and head.
        on_batch: told of the utterances done, and of how many.

    Raises:
        CiderError: if the run's model has no fusion attention.
        UsageError: for a layer or head it does not have.
    """
    sums = counts = None
    found: FusionScores | None = None
    done = total = len(opened.store.split(split))
    done = 0
    for view in opened.views(split, condition, most=_ROWS):
        found = _scores(opened, view)
        _, scores_BHLL = _chosen(found, choice)
        sums_GMM, counts_GMM = _sums(found, scores_BHLL)
        sums = sums_GMM if sums is None else sums + sums_GMM
        counts = counts_GMM if counts is None else counts + counts_GMM
        done += len(view.token_ids_BT)
        if on_batch is not None:
            on_batch(done, total)
    assert found is not None
    assert sums is not None
    assert counts is not None
    return _shares(found, sums, counts, total)


@torch.no_grad()
def _scores(opened: OpenedRun, view: View) -> FusionScores:
    model = opened.run.model.eval()
    text_BTF = model.text_encoder(view.token_ids_BT, view.valid.text)
    found = model.backbone.fusion_scores(view, text_BTF)
    if found is None:
        raise CiderError(
            f"model {opened.spec.model.name} of run {opened.folder.run_id} has no fusion attention "
            "to show; a model offers it through Backbone.fusion_scores"
        )
    return found


def _chosen(found: FusionScores, choice: Choice) -> tuple[int, torch.Tensor]:
    """Return the number of a layer and its scores (B, H, L, L), one head if one is asked for."""
    layer = choice.layer or len(found.layers)
    if not 1 <= layer <= len(found.layers):
        raise UsageError(f"--layer must be 1 to {len(found.layers)} for this run, got {layer}")
    scores_BHLL = found.layers[layer - 1]
    num_heads = scores_BHLL.shape[1]
    if not 0 <= choice.head <= num_heads:
        raise UsageError(f"--head must be 1 to {num_heads} for this run, got {choice.head}")
    if choice.head:
        scores_BHLL = scores_BHLL[:, choice.head - 1 : choice.head]
    return layer, scores_BHLL


def _sums(found: FusionScores, scores_BHLL: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return per subset, query and key modality: shares added up over utterances, and how many."""
    lengths = list(found.lengths)
    num = len(Modality)
    sums_GMM = np.zeros((len(found.subsets), num, num))
    counts_GMM = np.zeros_like(sums_GMM)
    members = list(Modality)
    for number, subset in enumerate(found.subsets):
        shares_BLM = key_shares(scores_BHLL, lengths, subset).mean(dim=1).double().cpu()
        for modality in subset:
            query = members.index(modality)
            valid_BT = found.valid[modality].cpu()
            own_BTM = shares_BLM[:, subset_steps(lengths, (modality,))] * valid_BT.unsqueeze(-1)
            steps_B = valid_BT.sum(dim=1)
            mean_BM = own_BTM.sum(dim=1) / steps_B.clamp_min(1).unsqueeze(-1)
            has_B = steps_B > 0
            for key in (members.index(each) for each in subset):
                sums_GMM[number, query, key] += float(mean_BM[has_B, key].sum())
                counts_GMM[number, query, key] += int(has_B.sum())
    return sums_GMM, counts_GMM


def _shares(
    found: FusionScores, sums_GMM: np.ndarray, counts_GMM: np.ndarray, utterances: int
) -> Shares:
    shares_GMM = np.full_like(sums_GMM, np.nan)
    np.divide(sums_GMM, counts_GMM, out=shares_GMM, where=counts_GMM > 0)
    return Shares(found.subsets, shares_GMM, utterances)


def name_of(subset: tuple[Modality, ...]) -> str:
    """Return a subset's letters, e.g. ``LAV``."""
    return "".join(modality.letter for modality in subset)
