"""Where a run's joint representations lie, under missing data, and numbers that need no projection.

A t-SNE shows neighbourhoods; distances between groups, their sizes and their shapes in it mean
nothing, and another perplexity can make another picture. So three numbers of the representations
themselves stand beside it. Shapes: N utterances, J joint width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cider.errors import CiderError, UsageError
from cider_platform.explaining.opened import COMPLETE
from cider_platform.runs.conditions import asked_conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cider.condition import Condition
    from cider.spec import Split
    from cider_platform.explaining.opened import OpenedRun

EXTRA = "figures"
"""The extra of the package that brings scikit-learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """How far classes lie apart in the joint representation, and how far missing data moves it."""

    centroid: float
    """Share of utterances nearest to the centroid of their own class, which is made without them;
    mean over classes, so that chance is 1 / C."""
    silhouette: float
    """Mean silhouette of the true classes, in [-1, 1]; 0: they lie upon each other."""
    cka: float
    """Linear CKA with the representations of the complete input, in [0, 1]; 1: the same up to
    rotation and scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One run under one condition."""

    run_id: str
    condition: Condition
    separation: Separation
    points_N2: np.ndarray
    """The t-SNE, float64, of the shown utterances."""
    labels_N: np.ndarray
    """Their classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """How utterances are drawn and projected."""

    points: int = 500
    """Most utterances that are drawn; the numbers are of all of them."""
    perplexity: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.points < 4:
            raise UsageError(f"--points must be at least 4, got {self.points}")
        if self.perplexity <= 0:
            raise UsageError(f"--perplexity must be above 0, got {self.perplexity:g}")


@torch.no_grad()
def representations(opened: OpenedRun, split: Split, condition: Condition) -> np.ndarray:
    """Return the joint representations of a split, float64 (N, J), in stored order."""
    model = opened.run.model.eval()
    found = []
    for view in opened.views(split, condition):
        text_BTF = model.text_encoder(view.token_ids_BT, view.valid.text)
        found.append(model.backbone.represent(view, text_BTF).double().cpu().numpy())
    return np.concatenate(found)


def panels(
    runs: Sequence[OpenedRun],
    split: Split,
    protocol: str,
    rates: Sequence[float],
    projection: Projection,
    on_panel: Callable[[int, int], None] | None = None,
) -> list[Panel]:
    """Return a panel per run and rate, run after run; all show the same utterances.

    Args:
        runs: runs of one corpus and task.
        split: which utterances; their labels colour the points.
        protocol: missing protocol; empty: the first run's own.
        rates: missing rates in [0, 1].
        projection: how points are chosen and projected.
        on_panel: told how many panels are done, and of how many.

    Raises:
        UsageError: if the runs are of several corpora or tasks, the protocol does not fit, or the
            perplexity is too large for the points.
        CiderError: without scikit-learn.
    """
    _check_library()
    _check_runs(runs)
    first = runs[0]
    asked = asked_conditions(first.spec.to_dict(), [protocol] if protocol else [], rates)
    labels_N = first.source(split).labels_N
    assert labels_N is not None
    rng = np.random.default_rng(projection.seed)
    shown_N = np.sort(rng.permutation(len(labels_N))[: projection.points])
    if projection.perplexity >= len(shown_N):
        raise UsageError(
            f"--perplexity must be below the number of points, got {projection.perplexity:g} with "
            f"{len(shown_N)} points"
        )
    found = []
    for opened in runs:
        complete_NJ = representations(opened, split, COMPLETE)
        for condition in asked:
            joint_NJ = representations(opened, split, condition)
            found.append(
                Panel(
                    run_id=opened.folder.run_id,
                    condition=condition,
                    separation=separation(joint_NJ, labels_N, complete_NJ),
                    points_N2=tsne(joint_NJ[shown_N], projection),
                    labels_N=labels_N[shown_N],
                )
            )
            if on_panel is not None:
                on_panel(len(found), len(runs) * len(asked))
    return found


def separation(joint_NJ: np.ndarray, labels_N: np.ndarray, complete_NJ: np.ndarray) -> Separation:
    """Return the numbers of some representations.

    Args:
        joint_NJ: under missing data.
        labels_N: true classes.
        complete_NJ: of the same utterances, complete.
    """
    from sklearn.metrics import silhouette_score  # noqa: PLC0415 - of an extra

    num_classes = len(np.unique(labels_N))
    has_several = 1 < num_classes < len(labels_N)
    return Separation(
        centroid=nearest_centroid(joint_NJ, labels_N),
        silhouette=float(silhouette_score(joint_NJ, labels_N)) if has_several else np.nan,
        cka=linear_cka(joint_NJ, complete_NJ),
    )


def nearest_centroid(joint_NJ: np.ndarray, labels_N: np.ndarray) -> float:
    """Return the share of utterances nearest to their own class's centroid, mean over classes.

    An utterance's own centroid is made without it. Classes of one utterance do not count.
    """
    classes, place_N, counts_C = np.unique(labels_N, return_inverse=True, return_counts=True)
    sums_CJ = np.zeros((len(classes), joint_NJ.shape[1]))
    np.add.at(sums_CJ, place_N, joint_NJ)
    centroids_CJ = sums_CJ / counts_C[:, None]
    distance_NC = ((joint_NJ[:, None] - centroids_CJ[None]) ** 2).sum(axis=-1)
    others_N1 = np.maximum(counts_C[place_N] - 1, 1)[:, None]
    own_NJ = (sums_CJ[place_N] - joint_NJ) / others_N1
    rows = np.arange(len(labels_N))
    distance_NC[rows, place_N] = ((joint_NJ - own_NJ) ** 2).sum(axis=-1)
    right_N = distance_NC.argmin(axis=1) == place_N
    shares = [right_N[place_N == c].mean() for c in range(len(classes)) if counts_C[c] > 1]
    return float(np.mean(shares)) if len(shares) > 1 else float("nan")


def linear_cka(first_NJ: np.ndarray, second_NJ: np.ndarray) -> float:
    """Return the linear centred kernel alignment of two sets of representations, in [0, 1]."""
    first_NJ = first_NJ - first_NJ.mean(axis=0)
    second_NJ = second_NJ - second_NJ.mean(axis=0)
    common = np.linalg.norm(first_NJ.T @ second_NJ) ** 2
    own = np.linalg.norm(first_NJ.T @ first_NJ) * np.linalg.norm(second_NJ.T @ second_NJ)
    return float(common / own) if own > 0 else float("nan")


def tsne(joint_NJ: np.ndarray, projection: Projection) -> np.ndarray:
    """Return the t-SNE of representations, float64 (N, 2); the same seed gives the same points."""
    from sklearn.manifold import TSNE  # noqa: PLC0415 - of an extra

    made = TSNE(
        perplexity=projection.perplexity, init="pca", random_state=projection.seed, n_jobs=1
    )
    points_N2: np.ndarray = made.fit_transform(joint_NJ.astype(np.float32)).astype(np.float64)
    return points_N2


def _check_library() -> None:
    try:
        import sklearn  # noqa: F401, PLC0415 - of an extra
    except ImportError:
        raise CiderError(
            "t-SNE takes scikit-learn, which is not installed; pip install "
            f"'cider-platform[{EXTRA}]'"
        ) from None


def _check_runs(runs: Sequence[OpenedRun]) -> None:
    first = runs[0]
    for other in runs[1:]:
        if other.spec.data != first.spec.data:
            raise UsageError(
                f"runs shown together must be of one corpus and task, {first.folder.run_id} is of "
                f"{first.store.manifest.key} ({first.spec.data.task}), {other.folder.run_id} of "
                f"{other.store.manifest.key} ({other.spec.data.task})"
            )


def distillation(opened: OpenedRun) -> str:
    """Return a run's weights of self-distillation in words."""
    loss = opened.spec.loss
    weights = (loss.reconstruction, loss.attention, loss.joint)
    if not any(weights):
        return "without self-distillation"
    alpha, beta, gamma = (f"{weight:g}" for weight in weights)
    return f"self-distillation: alpha {alpha}, beta {beta}, gamma {gamma}"
