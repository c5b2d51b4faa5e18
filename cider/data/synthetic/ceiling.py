"""The best accuracy that can be reached on a synthetic corpus, from the model that generates it.

The posterior of every label given an utterance is exact (no fitting); only its average over
utterances is by Monte Carlo. Instead of counting right answers, each drawn utterance contributes
the probability, under the test split's model, that the answer is right: the same expectation with
less noise. Legend: N drawn utterances, G label grid, C classes, J counts of word kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.labels import class_labels
from cider.data.synthetic.text import kind_counts
from cider.modality import SUBSETS
from cider.spec import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cider.data.synthetic.model import CorpusModel, SplitModel
    from cider.data.synthetic.text import Words
    from cider.spec import Split, Task

PREDICTORS = ("best_reachable", "best_from_training", "best_without_bias_words")
"""Who predicts: the best predictor that knows the test split's model; the one that is perfectly
fitted to the training split; and that one when it does not look which way bias words lean."""
METRICS = ("acc2", "acc2_of_best_acc3", "acc3", "acc7")
"""Accuracies. ``acc2`` (labels other than 0) is best for who never answers neutral;
``acc2_of_best_acc3`` is what a three-class predictor reaches that maximises ``acc3`` instead."""
MODALITY_SETS = tuple("".join(m.letter for m in subset) for subset in SUBSETS)
"""LAV, LA, LV, AV, L, A, V: what the predictor sees."""


def best_accuracy(
    model: CorpusModel, *, split: Split = "test", samples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the best accuracies on a split.

    Args:
        model: the generating model.
        split: where they are reached.
        samples: utterances to average over.
        rng: source of randomness.

    Returns:
        ``{predictor: {metric: {modality set: accuracy in [0, 1]}}}`` for all of ``PREDICTORS``,
        ``METRICS`` and ``MODALITY_SETS``, with ``standard_error`` (the largest of any figure) and
        ``samples`` beside the predictors.
    """
    own, train = model.splits[split], model.splits["train"]
    seen = draw_evidence(model, split, samples, rng)
    truth = (own.prior_G, log_likelihoods(own, seen))
    believed = {
        "best_reachable": truth,
        "best_from_training": (train.prior_G, log_likelihoods(train, seen)),
        "best_without_bias_words": (train.prior_G, log_likelihoods(train, seen, "unbiased")),
    }
    table: dict[str, Any] = {name: {metric: {} for metric in METRICS} for name in PREDICTORS}
    largest = 0.0
    for letters in MODALITY_SETS:
        truth_NG = posterior(*truth, letters)
        for name, belief in believed.items():
            belief_NG = posterior(*belief, letters)
            for metric in METRICS:
                right_N, scale = _chance_right(metric, belief_NG, truth_NG, model.grid_G, own)
                table[name][metric][letters] = round(float(right_N.mean() / scale), 4)
                error = right_N.std() / scale / np.sqrt(samples)
                largest = max(largest, float(error))
    return {**table, "standard_error": round(largest, 5), "samples": samples}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What N utterances show, as far as it tells about the label."""

    word_counts_NJ: np.ndarray
    """``kind_counts`` of the words."""
    frames: dict[str, np.ndarray]
    """Log-likelihood of every label given ``audio`` and ``vision``, (N, G) each."""


def log_likelihoods(
    believed: SplitModel, seen: Evidence, words: Words = "all"
) -> dict[str, np.ndarray]:
    """Return the log-likelihood of every label by modality letter, (N, G) each.

    Args:
        believed: the split whose associations of words the predictor believes in.
        seen: the utterances.
        words: which words are looked at; see ``WordModel.log_likelihood``.
    """
    text_NG = believed.words.log_likelihood(seen.word_counts_NJ, words)
    return {"L": text_NG, "A": seen.frames["audio"], "V": seen.frames["vision"]}


def posterior(
    prior_G: np.ndarray, log_likelihood: Mapping[str, np.ndarray], letters: str
) -> np.ndarray:
    """Return the probability of every label given the modalities ``letters``, (N, G)."""
    total_NG = np.log(prior_G) + sum(log_likelihood[letter] for letter in letters)
    weights_NG = np.exp(total_NG - total_NG.max(axis=1, keepdims=True))
    return np.asarray(weights_NG / weights_NG.sum(axis=1, keepdims=True))


def class_probabilities(label_NG: np.ndarray, grid_G: np.ndarray, task: Task) -> np.ndarray:
    """Return the probability of every class of a task from those of the labels, (N, C)."""
    membership_GC = np.eye(NUM_CLASSES[task])[class_labels(grid_G, task)]
    return np.asarray(label_NG @ membership_GC)


def answers(metric: str, belief_NG: np.ndarray, grid_G: np.ndarray) -> np.ndarray:
    """Return the classes a predictor answers to maximise one of ``METRICS``, int64 (N,)."""
    task: Task = "seven_class" if metric == "acc7" else "three_class"
    belief_NC = class_probabilities(belief_NG, grid_G, task)
    if metric == "acc2":
        belief_NC[:, 1] = -1.0  # neutral is never right there
    return np.asarray(belief_NC.argmax(axis=1))


def _chance_right(
    metric: str,
    belief_NG: np.ndarray,
    truth_NG: np.ndarray,
    grid_G: np.ndarray,
    own: SplitModel,
) -> tuple[np.ndarray, float]:
    """Return each answer's probability of being right (N,), and the share of utterances scored."""
    task: Task = "seven_class" if metric == "acc7" else "three_class"
    truth_NC = class_probabilities(truth_NG, grid_G, task)
    scale = 1.0
    if metric.startswith("acc2"):
        truth_NC[:, 1] = 0.0
        scale = float(own.prior_G[grid_G != 0].sum())
    answer_N = answers(metric, belief_NG, grid_G)
    return np.take_along_axis(truth_NC, answer_N[:, None], axis=1)[:, 0], scale


def draw_evidence(
    model: CorpusModel, split: Split, samples: int, rng: np.random.Generator
) -> Evidence:
    """Draw utterances of a split; frames as their estimates, which tell as much and cost less."""
    labels_N = model.sample_labels(split, samples, rng)
    lengths_N = model.sample_word_counts(samples, rng)
    words_NT = model.splits[split].words.sample(labels_N, lengths_N, rng)
    seen: dict[str, np.ndarray] = {}
    for modality, frames in model.frames.items():
        frames_N = model.sample_frame_counts(modality, lengths_N, rng)
        coefficient_NC = frames.sample_coefficients(labels_N, rng)
        noise_NC = rng.standard_normal(coefficient_NC.shape)
        estimate_NC = coefficient_NC + noise_NC * np.sqrt(frames.error_variance(frames_N))
        seen[modality] = frames.log_likelihood(estimate_NC, frames_N)
    return Evidence(kind_counts(words_NT), seen)
