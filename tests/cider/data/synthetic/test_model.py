"""The generating model: the shift between splits, and an exact best accuracy."""

import numpy as np
import pytest
from synthetic_views import labels_of, words_of

from cider.data.bias_words import bias_words, special_ids
from cider.data.labels import class_labels
from cider.data.synthetic import summary
from cider.data.synthetic.ceiling import Evidence, answers, log_likelihoods, posterior
from cider.data.synthetic.model import CorpusModel
from cider.data.synthetic.parameters import Parameters
from cider.data.synthetic.text import kind_counts
from cider.data.synthetic.vocabulary import (
    BIAS_KINDS,
    FIRST_WORD_ID,
    SENTIMENT_KINDS,
    VOCABULARY,
    WORDS,
    WordKind,
)
from cider.spec import SPLITS


def measured_lean(store, split, positive, negative):
    """Return how far words of two kinds lean with the label's sign, and how many words they are."""
    counts_NJ = kind_counts(words_of(store.split(split)))
    plain_NK = counts_NJ[:, : len(WordKind)] + counts_NJ[:, len(WordKind) :]
    sign_N = np.sign(labels_of(store, split))
    difference_N = plain_NK[:, positive] - plain_NK[:, negative]
    weight_N = 1 / np.bincount(sign_N.astype(int) + 1)[sign_N.astype(int) + 1]
    both_N = np.where(sign_N != 0, plain_NK[:, positive] + plain_NK[:, negative], 0.0)
    # Both signs count alike, so that a corpus of mostly positive labels shows no lean by itself.
    return (weight_N * sign_N * difference_N).sum() / (weight_N * both_N).sum(), both_N.sum()


def assert_lean(store, split, association):
    """Check how far every pair of kinds leans in a split, to four standard errors."""
    words = Parameters().words
    for pair, expected in (
        (BIAS_KINDS[:2], association * words.function_lean),
        (BIAS_KINDS[2:], association * words.bias_lean),
    ):
        found, count = measured_lean(store, split, *pair)
        assert found == pytest.approx(0.97 * expected, abs=4 / np.sqrt(count)), (split, pair)
    for pair, lean in (
        (SENTIMENT_KINDS[:2], words.mild_lean),
        (SENTIMENT_KINDS[2:], words.strong_lean),
    ):
        # Sentiment words come in flocks of one polarity, so their errors are larger.
        found, count = measured_lean(store, split, *pair)
        sincere = 0.97 * lean * (1 - 2 * words.irony)
        assert found == pytest.approx(sincere, abs=0.06 + 4 / np.sqrt(count)), (split, pair)


@pytest.mark.parametrize("name", ["synthetic-mosi", "synthetic-mosei"])
def test_ood_reverses_bias_words_and_nothing_else(store_of, name):
    store = store_of(name, "unaligned", "ood")
    expected = {"train": 1.0, "valid": 0.0, "test": -1.0}
    assert store.manifest.generator["association"] == expected
    for split, association in expected.items():
        assert_lean(store, split, association)


@pytest.mark.parametrize("name", ["synthetic-mosi", "synthetic-mosei"])
def test_iid_keeps_every_association_the_same_everywhere(store_of, name):
    store = store_of(name, "unaligned", "iid")
    for split in SPLITS:
        assert_lean(store, split, 1.0)


def test_validation_shift_of_zero_is_the_training_distribution(store_of):
    generator = store_of("synthetic-mosei-x0.01-v0", "unaligned", "ood").manifest.generator
    assert generator["association"]["valid"] == generator["association"]["train"]
    assert generator["label_prior"]["valid"] == generator["label_prior"]["train"]
    assert generator["label_prior"]["test"] != generator["label_prior"]["train"]


@pytest.mark.parametrize("name", ["synthetic-mosi", "synthetic-mosei"])
def test_published_bias_words_of_ood_hold_the_biased_and_hardly_any_sentiment(store_of, name):
    store = store_of(name, "unaligned", "ood")
    view = store.split("train")
    found = bias_words(
        [view.token_ids(row) for row in range(len(view))],
        class_labels(view.labels, "three_class"),
        3,
        special=special_ids(store.manifest.tokenizer),
    )
    words = {VOCABULARY.words[index - FIRST_WORD_ID] for index in found.ids}
    assert words >= {word for kind in BIAS_KINDS[2:] for word in WORDS[kind]}
    assert len(words & {word for kind in BIAS_KINDS for word in WORDS[kind]}) >= 95


def test_frame_estimates_recover_the_coefficients_with_the_stated_error():
    model = CorpusModel("mosi", alignment="unaligned", distribution="iid", parameters=Parameters())
    frames, rng = model.frames["vision"], np.random.default_rng(0)
    label, count, length = len(model.grid_G) - 1, 1500, 20
    labels_N, lengths_N = np.full(count, label), np.full(count, length)
    drawn = frames.sample(labels_N, lengths_N, rng)
    estimate_NC = np.stack([frames.estimate(frames_SF) for frames_SF in drawn])
    spread_C = np.array([channel.spread for channel in model.parameters.vision.channels])
    deviation_C = np.sqrt(frames.error_variance(lengths_N)[0] + spread_C**2)
    np.testing.assert_allclose(estimate_NC.std(axis=0) / deviation_C, 1, atol=0.06)
    standard_error_C = deviation_C / np.sqrt(count)
    assert (np.abs(estimate_NC.mean(axis=0) - 1) < 4 * standard_error_C).all()


@pytest.mark.parametrize("name", ["synthetic-mosi", "synthetic-mosei"])
@pytest.mark.parametrize("alignment", ["unaligned", "aligned"])
@pytest.mark.parametrize("distribution", ["iid", "ood"])
def test_best_accuracy_is_what_the_bayes_classifier_reaches_on_the_stored_test_split(
    store_of, name, alignment, distribution
):
    store = store_of(name, alignment, distribution)
    model = CorpusModel(
        name.removeprefix("synthetic-"),
        alignment=alignment,
        distribution=distribution,
        parameters=Parameters(),
    )
    view, labels_N = store.split("test"), labels_of(store, "test")
    seen = Evidence(kind_counts(words_of(view)), {})
    for modality, frames in model.frames.items():
        estimate_NC = np.stack(
            [frames.estimate(view.frames(modality, row)) for row in range(len(view))]
        )
        lengths_N = getattr(view.lengths, modality)
        seen.frames[modality] = frames.log_likelihood(estimate_NC, lengths_N)
    best = store.manifest.generator["best_accuracy"]
    assert best["standard_error"] < 0.004
    beliefs = {
        "best_reachable": ("test", "all"),
        "best_from_training": ("train", "all"),
        "best_without_bias_words": ("train", "unbiased"),
    }
    for predictor, (split, words) in beliefs.items():
        believed = model.splits[split]
        likelihoods = log_likelihoods(believed, seen, words)
        for letters in ("LAV", "AV", "L", "A", "V"):
            belief_NG = posterior(believed.prior_G, likelihoods, letters)
            for metric, expected in best[predictor].items():
                task = "seven_class" if metric == "acc7" else "three_class"
                truth_N = class_labels(labels_N, task)
                scored_N = labels_N != 0 if metric.startswith("acc2") else labels_N == labels_N
                right_N = (answers(metric, belief_NG, model.grid_G) == truth_N)[scored_N]
                share = expected[letters]
                error = np.sqrt(share * (1 - share) / len(right_N) + best["standard_error"] ** 2)
                assert abs(right_N.mean() - share) < 3 * error, (predictor, letters, metric)


def test_best_accuracies_stand_in_their_order(store_of):
    for name in ("synthetic-mosi", "synthetic-mosei"):
        best = store_of(name, "unaligned", "ood").manifest.generator["best_accuracy"]
        knows, fitted, careful = (
            best[predictor]["acc2"]
            for predictor in ("best_reachable", "best_from_training", "best_without_bias_words")
        )
        assert knows["LAV"] > knows["L"] > knows["A"] > knows["V"]
        assert knows["AV"] > max(knows["A"], knows["V"])
        assert fitted["LAV"] + 0.1 < careful["LAV"] < knows["LAV"]


def test_summary_tells_what_can_be_reached_once_per_different_predictor(store_of):
    iid = summary(store_of("synthetic-mosi").manifest)
    ood = summary(store_of("synthetic-mosi", "unaligned", "ood").manifest)
    assert iid[0].startswith("Synthetic: generated from a known model, seed 0, scale 1 of")
    assert len(ood) == len(iid) + 5
    assert any("AV 7" in line for line in ood)
