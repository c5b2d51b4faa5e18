import numpy as np
import pytest

from cider.data.labels import class_labels, label_histogram
from cider.errors import UsageError

LABELS = np.array([-3.0, -2.5, -1.5, -0.5, -0.2, -0.0, 0.0, 0.2, 0.5, 1.5, 2.5, 3.0], np.float32)


def test_class_labels_three_class_is_the_sign():
    found = class_labels(LABELS, "three_class")
    assert found.dtype == np.int64
    assert found.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]


def test_class_labels_seven_class_rounds_half_to_even():
    assert class_labels(LABELS, "seven_class").tolist() == [0, 1, 1, 3, 3, 3, 3, 3, 3, 5, 5, 6]


def test_class_labels_seven_class_clips_before_rounding():
    assert class_labels(np.array([-9.0, 9.0]), "seven_class").tolist() == [0, 6]


def test_class_labels_unknown_task_names_the_known_ones():
    with pytest.raises(UsageError, match="unknown task 'binary'; known: seven_class, three_class"):
        class_labels(LABELS, "binary")


def test_label_histogram_counts_every_class_of_both_tasks():
    histogram = label_histogram(np.array([-3.0, 0.0, 0.0, 1.0], np.float32))
    assert histogram == {"three_class": [1, 2, 1], "seven_class": [1, 0, 0, 2, 1, 0, 0]}
