from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from cider.errors import TrainingError, UsageError
from cider.metrics import (
    ACCURACY_OF,
    DEFINITIONS,
    METRICS,
    auilc,
    confusion_matrix,
    metrics_of_task,
    right_answers,
)
from cider.spec import NUM_CLASSES

NUM = {name: NUM_CLASSES[metric.task] for name, metric in METRICS.items()}


def one_hot(classes, num_classes):
    return np.log(np.eye(num_classes)[classes] + 1e-3)


@st.composite
def predictions(draw, num_classes):
    """Scores and labels of up to thirty utterances."""
    num_rows = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    some_classes = rng.integers(0, num_classes, rng.integers(1, num_classes + 1))
    return rng.normal(size=(num_rows, num_classes)), rng.choice(some_classes, num_rows)


def by_reference(name, scores_NC, labels_N):
    """The same metric by scikit-learn."""
    predicted_N = scores_NC.argmax(axis=1)
    if name in ("acc2", "f1"):
        predicted_N, labels_N = predicted_N[labels_N != 1], labels_N[labels_N != 1]
    if name.startswith("has0"):
        predicted_N, labels_N = scores_NC[:, 2] > scores_NC[:, 0], labels_N >= 1
    if not len(labels_N):
        return math.nan
    if "acc" in name:
        return reference.accuracy_score(labels_N, predicted_N)
    return reference.f1_score(labels_N, predicted_N, average="weighted", zero_division=0)


@pytest.mark.parametrize("name", METRICS)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_metric_equals_scikit_learn_in_any_order_and_within_bounds(name, data):
    scores_NC, labels_N = data.draw(predictions(NUM[name]))
    value = METRICS[name](scores_NC, labels_N)
    assert value == pytest.approx(by_reference(name, scores_NC, labels_N), nan_ok=True)
    assert math.isnan(value) or 0 <= value <= 1
    order = np.random.default_rng(0).permutation(len(labels_N))
    assert METRICS[name](scores_NC[order], labels_N[order]) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("name", METRICS)
def test_metric_of_perfect_predictions_is_one_and_of_wrong_ones_zero(name):
    labels_N = np.arange(60) % NUM[name]
    right_N, wrong_N = labels_N, (labels_N + 1) % NUM[name]
    if name.startswith("has0"):
        # The neutral score has no say, so the answer to a neutral label is positive.
        right_N, wrong_N = np.where(labels_N == 0, 0, 2), np.where(labels_N == 0, 2, 0)
    assert METRICS[name](one_hot(right_N, NUM[name]), labels_N) == 1.0
    assert METRICS[name](one_hot(wrong_N, NUM[name]), labels_N) == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_metric_of_no_utterance_is_undefined(name):
    assert math.isnan(METRICS[name](np.zeros((0, NUM[name])), np.zeros(0, dtype=int)))


@pytest.mark.parametrize("name", ["acc2", "f1"])
def test_non0_metric_of_neutral_utterances_alone_is_undefined(name):
    assert math.isnan(METRICS[name](np.zeros((4, 3)), np.ones(4, dtype=int)))


def test_acc2_counts_a_neutral_answer_as_wrong_and_leaves_neutral_labels_out():
    predicted_N = np.array([0, 1, 2, 2, 1])
    labels_N = np.array([0, 0, 2, 1, 1])
    assert METRICS["acc2"](one_hot(predicted_N, 3), labels_N) == pytest.approx(2 / 3)


def test_has0_ignores_the_neutral_score_and_counts_neutral_as_positive():
    scores_NC = np.log([[0.3, 0.6, 0.1], [0.1, 0.6, 0.3], [0.1, 0.6, 0.3], [0.3, 0.6, 0.1]])
    assert METRICS["has0_acc2"](scores_NC, np.array([0, 1, 2, 2])) == 0.75


def test_weighted_f1_takes_its_weights_from_the_labels():
    labels_N, predicted_N = np.array([0, 0, 0, 2]), np.array([0, 0, 2, 1])
    value = METRICS["f1_3"](one_hot(predicted_N, 3), labels_N)
    swapped = METRICS["f1_3"](one_hot(labels_N, 3), predicted_N)
    assert value == pytest.approx(0.75 * 0.8)
    # The same pairs in the other order: the weights would be those of the answers.
    assert swapped == pytest.approx(0.5 * 0.8)


def test_confusion_matrix_has_true_classes_in_rows():
    matrix = confusion_matrix(one_hot(np.array([0, 1, 1, 2]), 3), np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(
        matrix, reference.confusion_matrix([0, 0, 1, 1], [0, 1, 1, 2], labels=[0, 1, 2])
    )


@pytest.mark.parametrize("name", METRICS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_share_of_right_answers_is_the_accuracy(name, data):
    scores_NC, labels_N = data.draw(predictions(NUM[name]))
    right_N = right_answers(name, scores_NC, labels_N)
    accuracy = METRICS[ACCURACY_OF[name]](scores_NC, labels_N)
    if len(right_N):
        assert right_N.mean() == pytest.approx(accuracy)
    else:
        assert math.isnan(accuracy)


def test_right_answers_of_no_metric_are_refused():
    with pytest.raises(UsageError, match="unknown metric 'mae'"):
        right_answers("mae", np.zeros((1, 3)), np.zeros(1, dtype=int))


def test_metrics_of_task_covers_every_metric_once():
    names = [name for task in NUM_CLASSES for name in metrics_of_task(task)]
    assert sorted(names) == sorted(METRICS)
    with pytest.raises(UsageError, match="unknown task 'binary'; known: seven_class, three_class"):
        metrics_of_task("binary")


def test_every_number_is_defined_in_one_sentence():
    assert set(DEFINITIONS) == {*METRICS, "auilc", "confusion_matrix"}
    for definition in DEFINITIONS.values():
        assert re.search(r"\.\s+[A-Z]", definition) is None
        assert definition.endswith(".")


@pytest.mark.parametrize(
    ("scores_NC", "labels_N"),
    [
        (np.zeros((2, 4)), np.zeros(2, dtype=int)),
        (np.zeros((3, 3)), np.zeros(2, dtype=int)),
        (np.zeros((2, 3)), np.array([0, 3])),
        (np.zeros((2, 3)), np.array([-1, 0])),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_refused(scores_NC, labels_N):
    with pytest.raises(ValueError, match="must"):
        METRICS["acc3"](scores_NC, labels_N)


def test_predictions_that_are_not_numbers_are_refused():
    with pytest.raises(TrainingError, match="diverged"):
        METRICS["acc3"](np.full((2, 3), np.nan), np.array([0, 1]))


def test_auilc_of_a_line_is_its_mean_height():
    rates = np.linspace(0, 1, 11)
    assert auilc(rates, 0.9 - 0.4 * rates) == pytest.approx(0.7)
    assert auilc([0.0, 0.5, 1.0], [1.0, 0.5, 0.25]) == pytest.approx(0.5625)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20, unique=True), st.data())
@settings(max_examples=50, deadline=None)
def test_auilc_equals_scikit_learn(rates, data):
    rates = sorted(rates)
    values = data.draw(st.lists(st.floats(0, 1), min_size=len(rates), max_size=len(rates)))
    assert auilc(rates, values) == pytest.approx(reference.auc(rates, values), abs=1e-12)


@pytest.mark.parametrize(
    ("rates", "values"),
    [([0.5], [1.0]), ([0.0, 0.0], [1.0, 1.0]), ([1.0, 0.0], [1.0, 1.0]), ([0.0, 1.0], [1.0])],
)
def test_auilc_of_rates_that_do_not_rise_is_refused(rates, values):
    with pytest.raises(ValueError, match="at least two rising rates"):
        auilc(rates, values)
