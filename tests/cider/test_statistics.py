from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np
import pytest

from cider.data.batch import TokenIds
from cider.data.labels import class_labels
from cider.data.schema import StoreKey, Tokenizer
from cider.data.statistics import (
    cached_statistics,
    class_means,
    class_priors,
    load_statistics,
    save_statistics,
    statistics_key,
    training_statistics,
)
from cider.data.store import FeatureStore
from cider.data.writer import StoreWriter
from cider.errors import StoreError, UsageError
from cider.modality import Modality
from cider.spec import NUM_CLASSES, MaciConfig

TOKENS = TokenIds()
WIDTHS = {"audio": 3, "vision": 4}


def add_split(writer, split, num_rows, labels):
    rng = np.random.default_rng([num_rows, len(split)])

    def frames(width):
        return [
            rng.normal(size=(rng.integers(1, 6), width)).astype(np.float32) for _ in range(num_rows)
        ]

    writer.add(
        split,
        [f"{split}{row}" for row in range(num_rows)],
        ["some words"] * num_rows,
        [
            np.array([101, *rng.integers(110, 118, rng.integers(1, 6)), 102], dtype=np.int32)
            for _ in range(num_rows)
        ],
        frames(WIDTHS["audio"]),
        frames(WIDTHS["vision"]),
        labels,
        None,
        None,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    key = StoreKey(dataset="small", alignment="unaligned", distribution="iid")
    writer = StoreWriter(
        root,
        key,
        tokenizer=Tokenizer(name="small", vocab_size=120),
        widths=WIDTHS,
        max_lengths={"text": 10, "audio": 6, "vision": 6},
        source={"file": "none", "format": "test", "sha256": "0" * 64, "bytes": 0},
        default_encoder="scratch",
    )
    # No utterance of class -2 in seven classes; neutral is rare.
    labels = np.resize(np.array([-3, -1, -1, 0, 1, 2, 3, 3], dtype=np.float32), 40)
    with writer:
        add_split(writer, "train", 40, labels)
        add_split(writer, "valid", 6, labels[:6])
        add_split(writer, "test", 6, labels[:6])
        writer.finish()
    return FeatureStore.open(key.folder(root))


def compute(store, task="three_class", split="train", maci=None):
    return training_statistics(
        store.split(split),
        task=task,
        maci=maci or MaciConfig(),
        tokens=TOKENS,
        text_means=lambda: np.arange(NUM_CLASSES[task] * 5.0).reshape(-1, 5),
    )


def assert_equal(left, right):
    np.testing.assert_array_equal(left.prior_C, right.prior_C)
    for modality in Modality:
        np.testing.assert_array_equal(left.class_features[modality], right.class_features[modality])
    for name in ("ids", "counts", "cv"):
        result, expected = (getattr(each.bias_words, name) for each in (left, right))
        np.testing.assert_array_equal(result, expected)
        assert result.dtype == expected.dtype


def published_priors(published_dir):
    sizes = {"mosi": 1284, "mosei": 16326}
    with (published_dir / "class_priors.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield sizes[row["dataset"]], row["prior"].split()


def test_class_priors_of_whole_counts_equal_the_published_ones(published_dir):
    rows = list(published_priors(published_dir))
    assert len(rows) == 8
    for size, published in rows:
        counts = np.round(np.array(published, dtype=float) * size).astype(int)
        assert counts.sum() == size
        labels_N = np.repeat(np.arange(len(counts)), counts)
        prior_C = class_priors(labels_N, len(counts))
        assert prior_C.dtype == np.float32
        # They were published as NumPy prints a float32.
        assert [np.format_float_positional(prior, precision=8) for prior in prior_C] == published


def test_class_without_utterances_has_prior_zero_and_the_overall_mean():
    means_NF = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 9.0]])
    result = class_means(means_NF, np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(result, [[2, 0], [2, 3], [2, 9]])
    assert result.dtype == np.float32
    np.testing.assert_allclose(class_priors(np.array([0, 0, 2]), 3), [2 / 3, 0, 1 / 3])


@pytest.mark.parametrize("task", ["three_class", "seven_class"])
def test_statistics_equal_means_of_utterance_means_per_class(store, task):
    train = store.split("train")
    result = compute(store, task)
    labels_N = class_labels(train.labels, task)

    np.testing.assert_allclose(
        result.prior_C, [(labels_N == each).mean() for each in range(NUM_CLASSES[task])]
    )
    for modality in (Modality.AUDIO, Modality.VISION):
        per_class = [
            [train.frames(modality, row).mean(axis=0) for row in np.flatnonzero(labels_N == each)]
            for each in range(NUM_CLASSES[task])
        ]
        overall = np.mean([mean for means in per_class for mean in means], axis=0)
        expected = [np.mean(means, axis=0) if means else overall for means in per_class]
        np.testing.assert_allclose(result.class_features[modality], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.class_features.text[1], np.arange(5, 10))
    assert len(result.bias_words)


def test_bias_word_settings_come_from_the_configuration(store):
    assert len(compute(store, maci=MaciConfig(bias_words=2)).bias_words) == 2
    assert len(compute(store, maci=MaciConfig(bias_threshold=50.0)).bias_words) == 0


@pytest.mark.parametrize("split", ["valid", "test"])
def test_other_splits_are_refused(store, split):
    with pytest.raises(UsageError, match=f"training split only, got the split '{split}'"):
        compute(store, split=split)


def test_empty_training_split_is_refused():
    @dataclass
    class Empty:
        name: str = "train"

        def __len__(self):
            return 0

    with pytest.raises(UsageError, match="at least one utterance"):
        training_statistics(
            Empty(),
            task="three_class",
            maci=MaciConfig(),
            tokens=TOKENS,
            text_means=lambda: np.zeros((3, 1)),
        )


def test_text_means_of_another_number_of_classes_are_refused(store):
    with pytest.raises(ValueError, match=r"must have shape \(7, F\), got \(3, 5\)"):
        training_statistics(
            store.split("train"),
            task="seven_class",
            maci=MaciConfig(),
            tokens=TOKENS,
            text_means=lambda: np.zeros((3, 5)),
        )


@pytest.mark.parametrize("maci", [MaciConfig(), MaciConfig(bias_words=0)])
def test_saved_statistics_are_read_back_equal(store, tmp_path, maci):
    statistics = compute(store, maci=maci)
    path = tmp_path / "cache" / "some.safetensors"
    save_statistics(path, statistics)
    assert_equal(load_statistics(path), statistics)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_cached_statistics_are_computed_once(store, tmp_path):
    calls = []

    def counted():
        calls.append(1)
        return compute(store)

    first = cached_statistics(tmp_path, "key", counted)
    assert_equal(cached_statistics(tmp_path, "key", counted), first)
    assert len(calls) == 1
    cached_statistics(tmp_path, "other", counted)
    assert len(calls) == 2


def cut(data):
    return data[: len(data) // 2]


def flip_last_bit(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "damage", [cut, flip_last_bit, lambda data: b"", lambda data: b"\xff" * 64]
)
def test_damaged_cache_is_rebuilt(store, tmp_path, damage):
    first = cached_statistics(tmp_path, "key", lambda: compute(store))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError):
        load_statistics(path)
    assert_equal(cached_statistics(tmp_path, "key", lambda: compute(store)), first)
    assert_equal(load_statistics(path), first)


def test_failure_while_saving_leaves_nothing_behind(store, tmp_path):
    statistics = compute(store)
    (tmp_path / "key.safetensors").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - the kind differs between systems
        save_statistics(tmp_path / "key.safetensors", statistics)
    assert [each.name for each in tmp_path.iterdir()] == ["key.safetensors"]


def test_cache_key_depends_on_what_decides_the_numbers_alone():
    base = {
        "content_sha256": "a" * 64,
        "encoder": "b" * 64,
        "task": "three_class",
        "maci": MaciConfig(),
    }
    changes = [
        {"content_sha256": "c" * 64},
        {"encoder": "c" * 64},
        {"task": "seven_class"},
        {"maci": MaciConfig(bias_words=99)},
        {"maci": MaciConfig(bias_threshold=0.2)},
        {"maci": MaciConfig(bias_classes="all")},
    ]
    keys = {statistics_key(**base), *(statistics_key(**(base | change)) for change in changes)}
    assert len(keys) == 1 + len(changes)
    assert statistics_key(**(base | {"maci": MaciConfig(mcm=False)})) == statistics_key(**base)
