import numpy as np
import pytest

from cider.data.annealing import anneal
from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle
from cider.data.label_table import read_label_table
from cider.data.resplit import split_ood
from cider.data.schema import StoreKey, Tokenizer
from cider.data.store import FeatureStore
from cider.data.word_shift import build_word_table, label_distance
from cider.data.writer import StoreWriter
from cider.errors import StoreError, UsageError
from cider.spec import SPLITS

COUNTS = {"train": 300, "valid": 60, "test": 120}
FIRST_WORD, NUM_WORDS = 104, 30
"""Ten words lean to negative utterances, ten to positive ones, the rest to neither."""


def draw_corpus(count, rng):
    """Return token ids and labels of utterances of 6 words."""
    labels = rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0], count, p=[0.2, 0.25, 0.1, 0.25, 0.2])
    tokens = []
    for label in labels:
        lean = np.repeat([1.0 - 0.4 * np.sign(label), 1.0 + 0.4 * np.sign(label), 1.0], 10)
        words = rng.choice(NUM_WORDS, 6, p=lean / lean.sum())
        tokens.append(np.array([101, *(words + FIRST_WORD), 102], np.int32))
    return tokens, labels.astype(np.float32)


@pytest.fixture
def corpus(tmp_path):
    """Folder of a stored corpus of 480 utterances."""
    rng = np.random.default_rng(5)
    key = StoreKey(dataset="words", alignment="unaligned", distribution="iid")
    writer = StoreWriter(
        tmp_path,
        key,
        tokenizer=Tokenizer(name="words", vocab_size=200),
        widths={"audio": 1, "vision": 2},
        max_lengths={"text": 8, "audio": 3, "vision": 3},
        source={"file": "words.pkl"},
        default_encoder="scratch",
    )
    number = 0
    with writer:
        for split, count in COUNTS.items():
            tokens, labels = draw_corpus(count, rng)
            ids = [f"u{number + row}" for row in range(count)]
            number += count
            frames = [np.full((2, 1), row, np.float32) for row in range(count)]
            writer.add(
                split,
                ids,
                [f"text of {name}" for name in ids],
                tokens,
                frames,
                [np.repeat(frame, 2, axis=1) for frame in frames],
                labels,
            )
        writer.finish()
    return key.folder(tmp_path)


def rows_by_id(folder):
    """Return everything a corpus holds by utterance, whatever its split."""
    store, rows = FeatureStore.open(folder), {}
    for split in SPLITS:
        view, labels = store.split(split), read_label_table(folder, split)
        for row, name in enumerate(view.ids):
            rows[name] = (
                view.texts[row],
                view.token_ids(row).tolist(),
                view.frames("audio", row).tolist(),
                view.frames("vision", row).tolist(),
                float(labels.labels[row]),
            )
    return rows


def test_split_ood_moves_utterances_and_changes_none(tmp_path, corpus):
    manifest = split_ood(tmp_path, corpus, output_dataset="shifted")
    folder = manifest.key.folder(tmp_path)
    assert str(manifest.key) == "shifted/unaligned-ood"
    assert manifest.counts == COUNTS
    assert rows_by_id(folder) == rows_by_id(corpus)
    before, after = (FeatureStore.open(each).split("test").ids for each in (corpus, folder))
    assert set(before) != set(after)


def test_split_ood_keeps_the_label_counts_of_the_test_split(tmp_path, corpus):
    manifest = split_ood(tmp_path, corpus, output_dataset="shifted")
    before = FeatureStore.open(corpus).manifest.label_histogram["test"]
    assert manifest.label_histogram["test"] == before


def test_split_ood_shifts_test_far_beyond_chance_and_validation_not(tmp_path, corpus):
    report = split_ood(tmp_path, corpus, output_dataset="shifted").generator["report"]
    before, after, chance = report["before"], report["after"], report["chance"]
    assert before["word_shift_train_test"] < 2 * chance["test"]
    assert after["word_shift_train_test"] > 3 * chance["test"]
    assert after["word_shift_train_valid"] < 2 * chance["valid"]
    assert report["words"] == NUM_WORDS


def test_split_ood_same_seed_gives_the_same_corpus(tmp_path, corpus):
    hashes = [
        split_ood(
            tmp_path, corpus, output_dataset="shifted", seed=seed, steps=2000, overwrite=True
        ).content_sha256
        for seed in (3, 3, 4)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_split_ood_without_steps_leaves_the_test_split_alone(tmp_path, corpus):
    manifest = split_ood(tmp_path, corpus, output_dataset="shifted", steps=0)
    before = FeatureStore.open(corpus).split("test").ids
    assert FeatureStore.open(manifest.key.folder(tmp_path)).split("test").ids == before
    report = manifest.generator["report"]
    assert report["accepted"] == 0


def test_split_ood_report_is_what_the_stored_corpus_has(tmp_path, corpus):
    manifest = split_ood(tmp_path, corpus, output_dataset="shifted")
    store = FeatureStore.open(manifest.key.folder(tmp_path))
    tokens, labels, split = [], [], []
    for name in SPLITS:
        view = store.split(name)
        tokens += [view.token_ids(row) for row in range(len(view))]
        labels.append(read_label_table(store.folder, name).labels)
        split += [name] * len(view)
    positive = {"train": {}, "test": {}}
    for ids, label, name in zip(tokens, np.concatenate(labels), split, strict=True):
        if label != 0 and name != "valid":
            for word in set(ids.tolist()) - {101, 102}:
                positive[name].setdefault(word, []).append(label > 0)
    gaps = [
        abs(np.mean(positive["train"][word]) - np.mean(positive["test"][word]))
        if min(len(positive["train"][word]), len(positive["test"][word])) >= 10
        else 0.0
        for word in range(FIRST_WORD, FIRST_WORD + NUM_WORDS)
    ]
    reported = manifest.generator["report"]["after"]["word_shift_train_test"]
    assert reported == pytest.approx(np.mean(gaps), abs=1e-6)


def test_anneal_objective_kept_up_step_by_step_equals_the_one_computed_at_once():
    rng = np.random.default_rng(0)
    tokens, labels = draw_corpus(400, rng)
    test_N = np.arange(400) < 100
    table = build_word_table(tokens, labels, {101, 102}, ~test_N, test_N)
    few, many = (
        anneal(table, test_N, steps=steps, rng=np.random.default_rng(1)).test_N
        for steps in (50, 8000)
    )
    shifts = [table.shift(~chosen, chosen) for chosen in (test_N, few, many)]
    assert shifts[2] > shifts[1]
    assert shifts[2] > 2 * shifts[0]
    assert int(many.sum()) == 100
    assert label_distance(many, test_N, table.stratum_N) == 0.0


def test_word_shift_of_sets_with_opposite_words_is_one():
    tokens = [np.array([101, 110, 102])] * 20 + [np.array([101, 111, 102])] * 20
    tokens = tokens + tokens
    labels = np.array([1.0] * 20 + [-1.0] * 20 + [-1.0] * 20 + [1.0] * 20)
    first = np.arange(80) < 40
    table = build_word_table(tokens, labels, {101, 102}, first, ~first)
    assert table.num_words == 2
    assert table.shift(first, ~first) == 1.0
    assert table.shift(first, first) == 0.0


def test_word_shift_counts_a_word_that_became_rare_as_zero():
    tokens = [np.array([110])] * 40
    labels = np.array([1.0] * 20 + [-1.0] * 20)
    half = np.arange(40) % 2 == 0
    table = build_word_table(tokens, labels, set(), half, ~half)
    nine = np.arange(40) < 9
    assert table.shift(nine, ~nine) == 0.0


def test_split_ood_ids_of_two_splits_are_refused(tmp_path, golden_pickles):
    file = ImportFile(path=golden_pickles / "aligned_50.pkl", alignment="aligned")
    manifest = import_pickle(tmp_path, file, dataset="mosi", distribution="iid").manifest
    with pytest.raises(StoreError, match="occurs 3 times"):
        split_ood(tmp_path, manifest.key.folder(tmp_path), output_dataset="shifted")


def test_split_ood_corpus_too_small_is_refused(tmp_path, tiny_store):
    with pytest.raises(StoreError, match="is too small to shift: no word is in 10 training"):
        split_ood(tmp_path, tiny_store, output_dataset="shifted")


@pytest.mark.parametrize("options", [{"seed": -1}, {"steps": -5}])
def test_split_ood_negative_number_is_refused(tmp_path, tiny_store, options):
    with pytest.raises(UsageError, match="must be 0 or more"):
        split_ood(tmp_path, tiny_store, output_dataset="shifted", **options)


def test_split_ood_existing_result_needs_overwrite(tmp_path, corpus):
    split_ood(tmp_path, corpus, output_dataset="shifted", steps=10)
    with pytest.raises(StoreError, match="already stored"):
        split_ood(tmp_path, corpus, output_dataset="shifted", steps=10)
