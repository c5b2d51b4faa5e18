"""Synthetic corpora: same content everywhere, the shapes of the real ones, exact best accuracy."""

import json
import subprocess
import sys

import numpy as np
import pytest

from cider.data.bias_words import bias_words, special_ids
from cider.data.datasets import published_sizes
from cider.data.labels import class_labels
from cider.data.schema import MANIFEST_FILE, StoreKey, read_manifest
from cider.data.seal import TestPermit
from cider.data.store import FeatureStore
from cider.data.synthetic import ensure, split_counts, summary
from cider.data.synthetic.ceiling import answers, posterior
from cider.data.synthetic.facts import CORPORA, grid_prior, held_out_priors, label_grid
from cider.data.synthetic.model import CorpusModel
from cider.data.synthetic.name import DEFAULT_SCALES, canonical_name, is_synthetic, parse_name
from cider.data.synthetic.parameters import Parameters
from cider.data.synthetic.text import NO_WORD, kind_counts
from cider.data.synthetic.vocabulary import (
    BIAS_KINDS,
    FIRST_WORD_ID,
    SENTIMENT_KINDS,
    VOCABULARY,
    WORDS,
    WordKind,
)
from cider.errors import StoreError, UsageError
from cider.spec import SPLITS

SMALL = "synthetic-mosei-x0.01"


@pytest.fixture(scope="module")
def store_of(tmp_path_factory):
    """Function of (name, alignment, distribution) that returns the opened corpus."""
    root = tmp_path_factory.mktemp("store")

    def open_corpus(name, alignment="unaligned", distribution="iid"):
        return FeatureStore.open(ensure(root, name, alignment, distribution))

    return open_corpus


def labels_of(store, split):
    if split == "test":
        return store.test_labels(TestPermit("none", "a test of the generator"))
    return store.split(split).labels


def words_of(view):
    """Return the word numbers of a split, (N, T)."""
    ids = [view.token_ids(row)[1:-1].astype(np.int64) - FIRST_WORD_ID for row in range(len(view))]
    words_NT = np.full((len(ids), max(map(len, ids))), NO_WORD)
    for row, ids_T in enumerate(ids):
        words_NT[row, : len(ids_T)] = ids_T
    return words_NT


def measured_lean(store, split, positive, negative):
    """Return how far words of two kinds lean with the label's sign: 1 only with it, -1 against."""
    counts_NJ = kind_counts(words_of(store.split(split)))
    plain_NK = counts_NJ[:, : len(WordKind)] + counts_NJ[:, len(WordKind) :]
    sign_N = np.sign(labels_of(store, split))
    difference_N = plain_NK[:, positive] - plain_NK[:, negative]
    both = (plain_NK[:, positive] + plain_NK[:, negative])[sign_N != 0].sum()
    return (sign_N * difference_N).sum() / both


# Names


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("synthetic-mosi", "synthetic-mosi"),
        ("synthetic-mosei-x0.10", "synthetic-mosei"),
        ("synthetic-mosei-x1.0", "synthetic-mosei-x1"),
        ("synthetic-mosi-v0.0-s7", "synthetic-mosi-v0-s7"),
        ("synthetic-mosei-x0.0500-v0.5-s0", "synthetic-mosei-x0.05"),
    ],
)
def test_canonical_name_of_equal_names_is_one(name, canonical):
    assert is_synthetic(name)
    assert canonical_name(name) == canonical
    assert canonical_name(canonical) == canonical
    StoreKey(dataset=canonical, alignment="aligned", distribution="ood")


def test_scale_and_seed_arguments_are_part_of_the_name():
    assert canonical_name("synthetic-mosi", scale=0.25, seed=3) == "synthetic-mosi-x0.25-s3"
    assert canonical_name("synthetic-mosi-x0.25", scale=0.25) == "synthetic-mosi-x0.25"
    assert canonical_name("synthetic-mosei", scale=DEFAULT_SCALES["mosei"]) == "synthetic-mosei"


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_scale_out_of_range_is_refused_with_what_is_allowed(tmp_path, scale):
    with pytest.raises(UsageError, match=r"scale must be above 0 and at most 1, got"):
        ensure(tmp_path, "synthetic-mosei", "unaligned", "iid", scale=scale)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("synthetic-iemocap", "unaligned", "iid"), "known: synthetic-mosi, synthetic-mosei"),
        (("synthetic-mosei-x", "unaligned", "iid"), "unknown synthetic corpus"),
        (("synthetic-mosei-x2", "unaligned", "iid"), "at most 1, got 2"),
        (("synthetic-mosei-v1.5", "unaligned", "ood"), r"validation shift must be in \[0, 1\]"),
        (("synthetic-mosei-x0.001", "unaligned", "iid"), None),
        (("synthetic-mosi-x0.001", "unaligned", "iid"), "the smallest useful scale is 0.0044"),
        (("synthetic-mosi", "unaligned", "cross_dataset"), "distributions iid, ood, got"),
        (("synthetic-mosi", "both", "iid"), "alignment must be one of unaligned, aligned, got"),
    ],
)
def test_ensure_of_what_does_not_exist_is_a_sentence(tmp_path, arguments, sentence):
    if sentence is None:
        assert ensure(tmp_path, *arguments).is_dir()
        return
    with pytest.raises(UsageError, match=sentence):
        ensure(tmp_path, *arguments)
    assert not list(tmp_path.iterdir())


def test_scale_beside_a_name_that_says_another_is_refused():
    with pytest.raises(UsageError, match=r"says scale 0\.2, but scale 0\.3 was asked for too"):
        parse_name("synthetic-mosei-x0.2", scale=0.3)


# Facts


@pytest.mark.parametrize("corpus", CORPORA)
def test_facts_equal_the_published_sizes(corpus):
    facts = CORPORA[corpus]
    key = StoreKey(dataset=corpus, alignment="unaligned", distribution="iid")
    published = published_sizes(key)
    assert dict(zip(SPLITS, facts.counts, strict=True)) == published.counts
    assert facts.widths == published.widths
    assert facts.max_lengths == published.lengths


@pytest.mark.parametrize("corpus", CORPORA)
def test_grid_prior_gives_both_tasks_their_priors(corpus):
    facts = CORPORA[corpus]
    grid_G = label_grid(facts.label_steps)
    for priors in (*facts.train_priors.values(), held_out_priors(facts)):
        prior_G = grid_prior(priors, grid_G)
        assert prior_G.min() > 0
        for task in ("three_class", "seven_class"):
            shares_C = np.bincount(class_labels(grid_G, task), weights=prior_G)
            np.testing.assert_allclose(shares_C, getattr(priors, task), atol=2e-5)


@pytest.mark.parametrize("corpus", CORPORA)
def test_held_out_priors_make_up_for_the_training_split(corpus):
    facts = CORPORA[corpus]
    share = facts.counts[0] / sum(facts.counts)
    for task in ("three_class", "seven_class"):
        train = np.array(getattr(facts.train_priors["ood"], task))
        rest = np.array(getattr(held_out_priors(facts), task))
        together = share * train + (1 - share) * rest
        np.testing.assert_allclose(together, getattr(facts.overall, task), atol=1e-12)


def test_vocabulary_has_distinct_words_behind_the_special_ids():
    assert len(set(VOCABULARY.words)) == len(VOCABULARY.words)
    assert VOCABULARY.tokenizer().vocab_size == FIRST_WORD_ID + len(VOCABULARY.words)
    assert FIRST_WORD_ID > max(VOCABULARY.tokenizer().special_ids.values())


# Content


@pytest.mark.parametrize("name", ["synthetic-mosi", "synthetic-mosei"])
@pytest.mark.parametrize("distribution", ["iid", "ood"])
def test_corpus_has_the_counts_widths_lengths_and_priors_of_the_real_one(
    store_of, name, distribution
):
    store = store_of(name, "unaligned", distribution)
    manifest, facts = store.manifest, CORPORA[name.removeprefix("synthetic-")]
    scale = DEFAULT_SCALES[name.removeprefix("synthetic-")]
    assert manifest.synthetic
    assert manifest.default_encoder == "scratch"
    assert manifest.counts == {
        s: round(n * scale) for s, n in zip(SPLITS, facts.counts, strict=True)
    }
    assert manifest.widths == facts.widths
    assert manifest.max_lengths == facts.max_lengths
    for task in ("three_class", "seven_class"):
        # Systematic sampling: a class is off by less than one utterance at each of its two ends.
        expected = np.array(getattr(facts.train_priors[distribution], task))
        found = np.array(manifest.label_histogram["train"][task])
        np.testing.assert_allclose(found, expected * manifest.counts["train"], atol=1.05)
    words_N = store.split("train").lengths.text - 2
    assert words_N.min() >= 1
    assert np.median(words_N) == pytest.approx(np.exp(facts.words_log_mean), rel=0.08)
    # Frames per word are log-normal around their median, with standard deviation 0.3.
    frames_per_word = store.split("train").lengths.audio.sum() / words_N.sum()
    assert frames_per_word == pytest.approx(4 * np.exp(0.3**2 / 2), rel=0.05)


def test_text_and_token_ids_are_the_same_words(store_of):
    view = store_of(SMALL).split("train")
    for row in range(len(view)):
        ids_T = view.token_ids(row)
        assert (ids_T[0], ids_T[-1]) == (101, 102)
        assert view.texts[row] == VOCABULARY.text(ids_T[1:-1] - FIRST_WORD_ID)


def test_aligned_corpus_has_one_frame_per_token_and_the_same_words_and_labels(store_of):
    aligned, unaligned = store_of(SMALL, "aligned"), store_of(SMALL, "unaligned")
    assert set(aligned.manifest.max_lengths.values()) == {50}
    for split in SPLITS:
        ours, theirs = aligned.split(split), unaligned.split(split)
        assert ours.texts == theirs.texts
        np.testing.assert_array_equal(labels_of(aligned, split), labels_of(unaligned, split))
        np.testing.assert_array_equal(ours.lengths.text, ours.lengths.audio)
        np.testing.assert_array_equal(ours.lengths.text, ours.lengths.vision)
        assert (theirs.lengths.audio != theirs.lengths.vision).any()


def test_frames_are_unit_autocorrelated_noise_around_known_patterns(store_of):
    view = store_of("synthetic-mosei").split("train")
    frames = [view.frames("audio", row) for row in range(400)]
    channels = Parameters().audio.channels
    moved = sum(int(channel.width_share * 74) for channel in channels)
    still = [frames_SF[:, moved:-1] for frames_SF in frames]  # the last feature tells the time
    assert np.concatenate(still).std() == pytest.approx(1, abs=0.01)
    neighbours = np.mean([(noise_SF[1:] * noise_SF[:-1]).mean() for noise_SF in still])
    assert neighbours == pytest.approx(Parameters().audio.unaligned_correlation, abs=0.02)
    assert np.mean([frames_SF[0, -1] - frames_SF[-1, -1] for frames_SF in frames]) > 1.7


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


# The shift


def test_ood_reverses_bias_words_and_nothing_else(store_of):
    store = store_of("synthetic-mosi", "unaligned", "ood")
    lean = Parameters().words.bias_lean
    expected = {"train": lean, "valid": 0.0, "test": -lean}
    assert store.manifest.generator["bias_lean"] == pytest.approx(expected)
    for split in SPLITS:
        found = measured_lean(store, split, *BIAS_KINDS)
        assert found == pytest.approx(expected[split], abs=0.09)
        # Irony and negation take about a fifth of what sentiment words lean in sincere utterances.
        for positive, negative in (SENTIMENT_KINDS[:2], SENTIMENT_KINDS[2:]):
            assert measured_lean(store, split, positive, negative) == pytest.approx(0.74, abs=0.12)


def test_iid_keeps_bias_words_the_same_everywhere(store_of):
    store = store_of("synthetic-mosi", "unaligned", "iid")
    for split in SPLITS:
        found = measured_lean(store, split, *BIAS_KINDS)
        assert found == pytest.approx(Parameters().words.bias_lean, abs=0.09)


def test_validation_shift_of_zero_is_the_training_distribution(store_of):
    generator = store_of("synthetic-mosei-x0.01-v0", "unaligned", "ood").manifest.generator
    assert generator["bias_lean"]["valid"] == generator["bias_lean"]["train"]
    assert generator["label_prior"]["valid"] == generator["label_prior"]["train"]
    assert generator["label_prior"]["test"] != generator["label_prior"]["train"]


@pytest.mark.parametrize("name", ["synthetic-mosi", "synthetic-mosei"])
@pytest.mark.parametrize("distribution", ["iid", "ood"])
def test_published_bias_words_hold_bias_words_and_no_sentiment(store_of, name, distribution):
    store = store_of(name, "unaligned", distribution)
    view = store.split("train")
    found = bias_words(
        [view.token_ids(row) for row in range(len(view))],
        class_labels(view.labels, "three_class"),
        3,
        special=special_ids(store.manifest.tokenizer),
    )
    words = {VOCABULARY.words[index - FIRST_WORD_ID] for index in found.ids}
    bias = {word for kind in BIAS_KINDS for word in WORDS[kind]}
    assert len(words & bias) >= 0.75 * len(bias)
    assert not words & {word for kind in SENTIMENT_KINDS for word in WORDS[kind]}


# Best reachable accuracy


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
    evidence = {"word_counts": kind_counts(words_of(view))}
    for modality, frames in model.frames.items():
        estimate_NC = np.stack(
            [frames.estimate(view.frames(modality, row)) for row in range(len(view))]
        )
        lengths_N = getattr(view.lengths, modality)
        evidence[modality] = frames.log_likelihood(estimate_NC, lengths_N)
    best = store.manifest.generator["best_accuracy"]
    assert best["standard_error"] < 0.004
    beliefs = {
        "best_reachable": ("test", "all"),
        "best_from_training": ("train", "all"),
        "best_without_bias_words": ("train", "unbiased"),
    }
    for predictor, (split, words) in beliefs.items():
        for letters in ("LAV", "AV", "L", "A", "V"):
            belief_NG = posterior(model.splits[split], evidence, letters, words)
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


# Storing


def test_content_is_the_same_in_another_process(store_of, tmp_path):
    code = (
        "import sys; from pathlib import Path; from cider.data.synthetic import ensure; "
        "ensure(Path(sys.argv[1]), sys.argv[2], 'unaligned', 'ood')"
    )
    # Three at once: each must find a whole corpus when it returns, whoever put it in place.
    command = [sys.executable, "-c", code, str(tmp_path), SMALL]
    others = [subprocess.Popen(command) for _ in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    folder = tmp_path / SMALL
    assert [path.name for path in folder.iterdir()] == ["unaligned-ood"]
    theirs = read_manifest(folder / "unaligned-ood")
    assert theirs.to_json() == store_of(SMALL, "unaligned", "ood").manifest.to_json()


def test_another_seed_is_another_corpus(store_of):
    one, other = store_of(SMALL).manifest, store_of(f"{SMALL}-s1").manifest
    assert one.content_sha256 != other.content_sha256
    assert one.label_histogram == other.label_histogram


def test_ensure_again_changes_nothing_and_replaces_another_generators_corpus(tmp_path):
    calls = []
    folder = ensure(
        tmp_path, "synthetic-mosei", "aligned", "iid", scale=0.01,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    total = sum(split_counts(parse_name(SMALL)).values())
    assert calls[-1] == (total, total)
    manifest = folder / MANIFEST_FILE
    before = manifest.stat().st_mtime_ns
    assert ensure(tmp_path, SMALL, "aligned", "iid") == folder
    assert manifest.stat().st_mtime_ns == before

    good = manifest.read_text(encoding="utf-8")
    values = json.loads(good)
    values["generator"]["version"] = 0
    manifest.write_text(json.dumps(values), encoding="utf-8")
    assert ensure(tmp_path, SMALL, "aligned", "iid") == folder
    assert manifest.read_text(encoding="utf-8") == good


def test_ensure_in_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        ensure(tmp_path / "file", SMALL, "aligned", "iid")
