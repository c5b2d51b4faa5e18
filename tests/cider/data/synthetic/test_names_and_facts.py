"""Names of synthetic corpora, and the facts about real ones that they imitate."""

import numpy as np
import pytest

from cider.data.datasets import published_sizes
from cider.data.labels import class_labels
from cider.data.schema import StoreKey
from cider.data.synthetic import ensure
from cider.data.synthetic.facts import CORPORA, grid_prior, held_out_priors, label_grid
from cider.data.synthetic.name import DEFAULT_SCALES, canonical_name, is_synthetic, parse_name
from cider.data.synthetic.vocabulary import (
    FIRST_WORD_ID,
    VOCABULARY,
)
from cider.errors import UsageError
from cider.spec import SPLITS


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
    assert max(VOCABULARY.tokenizer().special_ids.values()) < FIRST_WORD_ID
