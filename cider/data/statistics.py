"""What is computed once from a training split: class priors, class means of features, bias words.

Shapes: N utterances, S frames, F feature width, C classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cider.config import canonical_json
from cider.data.bias_words import BiasWords, SpecialTokens, bias_words, special_ids
from cider.data.labels import class_labels
from cider.errors import StoreError, UsageError
from cider.modality import Modality, PerModality
from cider.spec import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cider.data.store import SplitView
    from cider.spec import MaciConfig, Task

FORMAT = "cider-statistics/1"
"""Raised when the same corpus and settings would give other numbers than before."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingStatistics:
    """The confounders of the backdoor adjustment (Eq. 20-24), and the bias words (Eq. 26-27)."""

    prior_C: np.ndarray
    """Share of each class in the training split, float32."""
    class_features: PerModality[np.ndarray]
    """Mean features of each class, float32 (C, F) per modality."""
    bias_words: BiasWords


def class_priors(labels_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the share of each class, float32 (C,).

    Args:
        labels_N: class labels, int in [0, num_classes); at least one.
        num_classes: number of classes, C.
    """
    counts_C = np.bincount(labels_N, minlength=num_classes)
    return counts_C.astype(np.float32) / np.float32(len(labels_N))


def class_means(means_NF: np.ndarray, labels_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the mean of each class's utterances, float32 (C, F).

    A class without utterances gets the mean of all of them; its prior is 0.

    Args:
        means_NF: one vector per utterance, the mean of its steps.
        labels_N: class labels, int in [0, num_classes).
        num_classes: number of classes, C.
    """
    sums_CF = np.zeros((num_classes, means_NF.shape[1]))
    np.add.at(sums_CF, labels_N, means_NF)
    counts_C1 = np.bincount(labels_N, minlength=num_classes)[:, None]
    overall_F = sums_CF.sum(axis=0) / len(labels_N)
    means_CF = np.where(counts_C1 > 0, sums_CF / np.maximum(counts_C1, 1), overall_F)
    return means_CF.astype(np.float32)


def utterance_means(train: SplitView, modality: Modality) -> np.ndarray:
    """Return the mean over its valid frames of every utterance, float64 (N, F)."""
    # A stored utterance has at least one frame of each modality.
    return np.stack(
        [
            train.frames(modality, index).mean(axis=0, dtype=np.float64)
            for index in range(len(train))
        ]
    )


def training_statistics(
    train: SplitView,
    *,
    task: Task,
    maci: MaciConfig,
    tokens: SpecialTokens,
    text_means: Callable[[], np.ndarray],
) -> TrainingStatistics:
    """Compute the statistics of a training split.

    A class's audio and vision mean is the mean of its utterances' means over their valid frames,
    so that a long utterance counts no more than a short one.

    Args:
        train: the training split.
        task: three_class or seven_class.
        maci: settings of the bias words.
        tokens: the corpus's special tokens.
        text_means: returns the class means of the text features, (C, F); ``class_means`` makes
            them from a vector per utterance.

    Raises:
        UsageError: for any other split than ``train``, or an empty one.
    """
    if train.name != "train":
        raise UsageError(
            "training statistics come from the training split only, "
            f"got the split {train.name!r}; pass the split 'train'"
        )
    if not len(train):
        raise UsageError("training statistics need at least one utterance, got an empty split")
    num_classes = NUM_CLASSES[task]
    labels_N = class_labels(train.labels, task)
    audio_CF, vision_CF = (
        class_means(utterance_means(train, modality), labels_N, num_classes)
        for modality in (Modality.AUDIO, Modality.VISION)
    )
    words = bias_words(
        [train.token_ids(index) for index in range(len(train))],
        labels_N,
        num_classes,
        special=special_ids(tokens),
        limit=maci.bias_words,
        threshold=maci.bias_threshold,
        classes=maci.bias_classes,
    )
    text_CF = np.asarray(text_means(), dtype=np.float32)
    if text_CF.ndim != 2 or len(text_CF) != num_classes:
        raise ValueError(f"text means must have shape ({num_classes}, F), got {text_CF.shape}")
    features = PerModality(text_CF, audio_CF, vision_CF)
    return TrainingStatistics(class_priors(labels_N, num_classes), features, words)


def statistics_key(*, content_sha256: str, encoder: str, task: Task, maci: MaciConfig) -> str:
    """Return the name under which statistics are cached: a hash of all that decides them.

    Args:
        content_sha256: hash of the stored corpus's content.
        encoder: what identifies the not-fine-tuned text encoder: the hash of its weights.
        task: three_class or seven_class.
        maci: settings of the bias words; its other fields do not count.
    """
    settings = [maci.bias_words, maci.bias_threshold, maci.bias_classes]
    identity = canonical_json([FORMAT, content_sha256, encoder, task, settings])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def cached_statistics(
    folder: Path, key: str, compute: Callable[[], TrainingStatistics]
) -> TrainingStatistics:
    """Return the statistics stored under a key; compute and store them if absent or damaged.

    Args:
        folder: the cache's folder; it is made.
        key: from ``statistics_key``.
        compute: what gives the statistics.
    """
    path = folder / f"{key}.safetensors"
    if path.exists():
        try:
            return load_statistics(path)
        except StoreError as error:
            logger.warning("%s; computing the statistics again", error)
    statistics = compute()
    save_statistics(path, statistics)
    return statistics


def save_statistics(path: Path, statistics: TrainingStatistics) -> None:
    """Write statistics to one safetensors file with JSON in its header, whole or not at all."""
    tensors = _tensors(statistics)
    header = {"statistics": canonical_json({"format": FORMAT, "sha256": _digest(tensors)})}
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, because trials of one machine may fill the cache at the same time.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        save_file(tensors, temporary, header)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_statistics(path: Path) -> TrainingStatistics:
    """Read statistics written by ``save_statistics``.

    Raises:
        StoreError: if the file is damaged or of another format.
    """
    try:
        with safe_open(path, "numpy") as file:
            header = json.loads((file.metadata() or {})["statistics"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"the cached statistics {path} cannot be read ({error})") from error
    if header != {"format": FORMAT, "sha256": _digest(tensors)}:
        raise StoreError(f"the cached statistics {path} are damaged or of another format")
    features = PerModality(*(tensors[f"class_features/{modality}"] for modality in Modality))
    words = BiasWords(*(tensors[f"bias_words/{name}"] for name in ("ids", "counts", "cv")))
    return TrainingStatistics(tensors["prior"], features, words)


def _tensors(statistics: TrainingStatistics) -> dict[str, np.ndarray]:
    words = statistics.bias_words
    features = zip(Modality, statistics.class_features, strict=True)
    return {
        "prior": statistics.prior_C,
        **{f"class_features/{modality}": means_CF for modality, means_CF in features},
        "bias_words/ids": words.ids,
        "bias_words/counts": words.counts,
        "bias_words/cv": words.cv,
    }


def _digest(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
