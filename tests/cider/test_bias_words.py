from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cider.data.batch import TokenIds
from cider.data.bias_words import bias_words, counterfactual_ids, keep_table, special_ids

TOKENS = TokenIds()
SPECIAL = special_ids(TOKENS)

# Words of a small vocabulary with classes, as (class, ids of an utterance).
corpora = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(200, 212), max_size=8)), max_size=25
)


def split(corpus):
    token_ids = [np.array([101, *words, 102], dtype=np.int32) for _, words in corpus]
    return token_ids, np.array([label for label, _ in corpus], dtype=np.int64)


def by_counting(corpus, classes, limit, threshold):
    """Bias words by the definition, word by word."""
    total: Counter[int] = Counter(word for _, words in corpus for word in words)
    found = []
    for word, count in total.items():  # a Counter keeps the order of first appearance
        counts = np.array(
            [sum(words.count(word) for label, words in corpus if label == each) for each in classes]
        )
        if counts.sum() and counts.std() / counts.mean() >= threshold:
            found.append((word, count, counts.std() / counts.mean()))
    return sorted(found, key=lambda entry: -entry[1])[:limit]


@pytest.mark.parametrize(("classes", "counted"), [("polar", (0, 2)), ("all", (0, 1, 2))])
@given(corpus=corpora, limit=st.integers(0, 6), threshold=st.sampled_from([0.0, 0.17, 0.37]))
@settings(max_examples=60, deadline=None)
def test_bias_words_equal_counting_word_by_word(classes, counted, corpus, limit, threshold):
    token_ids, labels = split(corpus)
    result = bias_words(
        token_ids, labels, 3, special=SPECIAL, limit=limit, threshold=threshold, classes=classes
    )
    expected = by_counting(corpus, counted, limit, threshold)
    assert result.ids.tolist() == [word for word, _, _ in expected]
    assert result.counts.tolist() == [count for _, count, _ in expected]
    np.testing.assert_allclose(result.cv, [cv for _, _, cv in expected], rtol=1e-6)
    assert result.cv.dtype == np.float32
    assert len(result) == len(expected)


def test_word_of_no_counted_class_is_no_bias_word():
    # 200 is the first and most frequent word, and only neutral: its coefficient is undefined.
    token_ids, labels = split([(1, [200, 200, 200]), (0, [201]), (2, [202, 202])])
    result = bias_words(token_ids, labels, 3, special=SPECIAL)
    assert result.ids.tolist() == [202, 201]
    assert 200 in bias_words(token_ids, labels, 3, special=SPECIAL, classes="all").ids


def test_words_below_the_threshold_do_not_use_up_the_limit():
    token_ids, labels = split([(0, [200, 200, 201]), (2, [200, 200, 202])])
    result = bias_words(token_ids, labels, 3, special=SPECIAL, limit=2)
    assert result.ids.tolist() == [201, 202]


def test_coefficient_equal_to_the_threshold_is_a_bias_word():
    # Counts 9 and 11: std 1, mean 10.
    token_ids, labels = split([(0, [200] * 9), (2, [200] * 11)])
    assert bias_words(token_ids, labels, 3, special=SPECIAL, threshold=0.1).ids.tolist() == [200]


def test_seven_class_coefficients_are_over_all_classes():
    token_ids, labels = split([(label, [200]) for label in range(7)])
    labels = np.arange(7)
    for classes in ("polar", "all"):
        result = bias_words(token_ids, labels, 7, special=SPECIAL, classes=classes, threshold=0.0)
        assert result.cv.tolist() == [0.0]


def test_special_tokens_are_never_bias_words():
    token_ids, labels = split([(0, [100, 103, 0, 200]), (0, [100, 200])])
    assert bias_words(token_ids, labels, 3, special=SPECIAL).ids.tolist() == [200]


def test_corpus_without_words_has_no_bias_words():
    assert len(bias_words([], np.zeros(0, dtype=int), 3, special=SPECIAL)) == 0
    token_ids, labels = split([(0, []), (2, [])])
    assert len(bias_words(token_ids, labels, 3, special=SPECIAL)) == 0


def test_utterances_and_labels_of_different_number_are_refused():
    with pytest.raises(ValueError, match="1 utterances have 2 class labels"):
        bias_words([np.array([200])], np.array([0, 1]), 3, special=SPECIAL)


def test_counterfactual_text_keeps_bias_words_and_special_tokens():
    table = keep_table(np.array([200, 202]), 300, TOKENS)
    text_BT = np.array([[101, 200, 201, 100, 202, 103, 102, 0], [101, 201, 102, 0, 0, 0, 0, 0]])
    expected = [[101, 200, 103, 100, 202, 103, 102, 0], [101, 103, 102, 0, 0, 0, 0, 0]]
    result = counterfactual_ids(text_BT.astype(np.int32), table, TOKENS)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(counterfactual_ids(result, table, TOKENS), result)


def test_keep_table_of_no_bias_words_keeps_special_tokens_alone():
    table = keep_table(np.zeros(0, dtype=np.int64), 200, TOKENS)
    assert table.dtype == bool
    assert set(np.flatnonzero(table)) == set(SPECIAL)


def test_bias_word_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"must be in \[0, 200\)"):
        keep_table(np.array([200]), 200, TOKENS)
