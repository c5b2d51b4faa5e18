"""The best accuracy that can be reached on a synthetic corpus, from the model that generates it.

The posterior of every label given an utterance is exact (no fitting); only its average over
utterances is by Monte Carlo. Instead of counting right answers, each drawn utterance contributes
the probability, under the test split's model, that the answer is right: the same expectation with
less noise. Legend: N drawn utterances, G label grid, C classes, J counts of word kinds.
"""

from __future__ import annotations

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
_SMALLEST = 1e-300


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
    evidence = draw_evidence(model, split, samples, rng)
    table: dict[str, Any] = {name: {metric: {} for metric in METRICS} for name in PREDICTORS}
    largest = 0.0
    for letters in MODALITY_SETS:
        truth_NG = posterior(own, evidence, letters)
        beliefs = {
            "best_reachable": truth_NG,
            "best_from_training": posterior(train, evidence, letters),
            "best_without_bias_words": posterior(train, evidence, letters, words="unbiased"),
        }
        for name, belief_NG in beliefs.items():
            for metric in METRICS:
                right_N, scale = _chance_right(metric, belief_NG, truth_NG, model.grid_G, own)
                table[name][metric][letters] = round(float(right_N.mean() / scale), 4)
                error = right_N.std() / scale / np.sqrt(samples)
                largest = max(largest, float(error))
    return {**table, "standard_error": round(largest, 5), "samples": samples}


def posterior(
    believed: SplitModel,
    evidence: Mapping[str, np.ndarray],
    letters: str,
    words: Words = "all",
) -> np.ndarray:
    """Return the probability of every label given what is seen, (N, G).

    Args:
        believed: the split whose prior and bias words the predictor believes in.
        evidence: ``word_counts`` (N, J) from ``kind_counts``; ``audio`` and ``vision``, the
            log-likelihoods (N, G) of ``FrameModel.log_likelihood``.
        letters: the modalities seen, for example ``"LA"``.
        words: which words are looked at; see ``WordModel.log_likelihood``.
    """
    total_NG = np.log(np.maximum(believed.prior_G, _SMALLEST))[None]
    if "L" in letters:
        total_NG = total_NG + believed.words.log_likelihood(evidence["word_counts"], words)
    for letter, modality in (("A", "audio"), ("V", "vision")):
        if letter in letters:
            total_NG = total_NG + evidence[modality]
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
) -> dict[str, np.ndarray]:
    """Draw what utterances of a split show, as ``posterior`` wants it.

    Frames are drawn as their estimates, which tell as much and cost far less.
    """
    labels_N = model.sample_labels(split, samples, rng)
    lengths_N = model.sample_word_counts(samples, rng)
    words_NT = model.splits[split].words.sample(labels_N, lengths_N, rng)
    evidence = {"word_counts": kind_counts(words_NT)}
    for modality, frames in model.frames.items():
        frames_N = model.sample_frame_counts(modality, lengths_N, rng)
        coefficient_NC = frames.sample_coefficients(labels_N, rng)
        noise_NC = rng.standard_normal(coefficient_NC.shape)
        estimate_NC = coefficient_NC + noise_NC * np.sqrt(frames.error_variance(frames_N))
        evidence[modality] = frames.log_likelihood(estimate_NC, frames_N)
    return evidence
