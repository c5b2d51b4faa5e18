import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cider.data.schema import StoreKey, read_manifest
from cider.data.seal import TestPermit
from cider.data.store import FeatureStore, find_store
from cider.data.verify import verify_corpus
from cider.data.writer import StoreWriter
from cider.errors import SealedTestError, StoreError, UsageError


def test_store_rows_written_are_read_back_equal(tiny_store, tiny_rows):
    store = FeatureStore.open(tiny_store)
    for split, count in store.manifest.counts.items():
        view, rows = store.split(split), tiny_rows(split, count)
        assert len(view) == count
        assert view.ids == rows["ids"]
        assert view.texts == rows["texts"]
        for row in range(count):
            np.testing.assert_array_equal(view.token_ids(row), rows["token_ids"][row])
            np.testing.assert_array_equal(view.frames("audio", row), rows["audio"][row])
            np.testing.assert_array_equal(view.frames("vision", row), rows["vision"][row])
        assert view.lengths.text.tolist() == [len(row) for row in rows["token_ids"]]
        assert view.lengths.vision.tolist() == [len(row) for row in rows["vision"]]


def test_store_arrays_are_read_only_views_of_the_mapped_file(tiny_store):
    view = FeatureStore.open(tiny_store).split("train")
    frames, tokens = view.frames("audio", 3), view.token_ids(3)
    assert frames.dtype == np.float32
    assert tokens.dtype == np.int32
    for array in (frames, tokens):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_store_of_half_precision_is_half_as_large_and_reads_rounded_float32(
    tmp_path, write_store, tiny_rows
):
    manifest = write_store(tmp_path, dataset="half", dtype="float16")
    whole = write_store(tmp_path, dataset="whole")
    assert (manifest.dtype, whole.dtype) == ("float16", "float32")
    assert manifest.content_sha256 != whole.content_sha256
    view = FeatureStore.open(manifest.key.folder(tmp_path)).split("train")
    for row, frames_SF in enumerate(tiny_rows("train", 20)["audio"]):
        assert view.frames("audio", row).dtype == np.float32
        rounded_SF = frames_SF.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(view.frames("audio", row), rounded_SF)
    bytes_of = [
        view._columns["audio"]._values[0].nbytes
        for view in (
            FeatureStore.open(m.key.folder(tmp_path)).split("train") for m in (manifest, whole)
        )
    ]
    assert bytes_of[0] * 2 == bytes_of[1]


def test_store_of_half_precision_has_the_hash_of_what_it_reads(tmp_path, write_store):
    manifest = write_store(tmp_path, dataset="half", dtype="float16")
    assert verify_corpus(manifest.key.folder(tmp_path)).faults == []


def test_value_that_half_precision_does_not_hold_is_refused(tmp_path, write_store, tiny_rows):
    manifest = write_store(tmp_path)
    key = StoreKey(dataset="bad", alignment="unaligned", distribution="iid")
    rows = tiny_rows("train", 4)
    rows["vision"][1] = np.full((2, 4), 65519, np.float32)
    rows["vision"][2] = np.full((2, 4), -65520, np.float32)
    message = "'train_2': vision has the value 65520, and float16 holds none beyond 65504"
    writer = make_writer(tmp_path, key, manifest, dtype="float16")
    with pytest.raises(StoreError, match=message), writer:
        writer.add("train", **rows)
    assert not key.folder(tmp_path).exists()


def test_manifest_of_before_says_float32(tiny_store):
    path = tiny_store / "manifest.json"
    values = json.loads(path.read_text())
    del values["dtype"]
    path.write_text(json.dumps(values))
    assert FeatureStore.open(tiny_store).manifest.dtype == "float32"


def test_store_over_several_record_batches_reads_every_row(tmp_path, write_store, monkeypatch):
    monkeypatch.setattr("cider.data.writer.ROWS_PER_BATCH", 8)
    manifest = write_store(tmp_path / "small", pieces=3)
    monkeypatch.undo()
    whole = write_store(tmp_path / "whole")
    views = [
        FeatureStore.open(m.key.folder(tmp_path / name)).split("train")
        for name, m in (("small", manifest), ("whole", whole))
    ]
    for row in range(len(views[0])):
        np.testing.assert_array_equal(
            views[0].frames("vision", row), views[1].frames("vision", row)
        )
    assert views[0].ids == views[1].ids
    np.testing.assert_array_equal(views[0].labels, views[1].labels)
    assert manifest.files != whole.files
    assert manifest.content_sha256 == whole.content_sha256


def test_content_hash_of_other_content_differs(tmp_path, write_store):
    first = write_store(tmp_path / "a")
    assert write_store(tmp_path / "b", seed=1).content_sha256 != first.content_sha256
    longer = {"text": 10, "audio": 12, "vision": 15}
    assert write_store(tmp_path / "c", max_lengths=longer).content_sha256 != first.content_sha256


def test_content_hash_ignores_names_and_provenance(tmp_path, write_store):
    first = write_store(tmp_path, dataset="one")
    second = write_store(tmp_path, dataset="two", default_encoder="other", source={"file": "x"})
    assert first.content_sha256 == second.content_sha256


def test_store_labels_of_train_and_valid_are_float32(tiny_store, tiny_rows):
    view = FeatureStore.open(tiny_store).split("valid")
    assert view.labels.dtype == np.float32
    np.testing.assert_array_equal(view.labels, tiny_rows("valid", 6)["labels"])


def test_store_test_labels_are_sealed_in_the_split_view(tiny_store):
    with pytest.raises(SealedTestError, match="test labels of tiny/unaligned-iid are sealed"):
        _ = FeatureStore.open(tiny_store).split("test").labels


def test_store_test_split_works_without_its_label_file(tiny_store):
    (tiny_store / "test.labels.arrow").unlink()
    view = FeatureStore.open(tiny_store).split("test")
    assert view.frames("audio", 0).shape[1] == 3


def test_store_test_labels_open_for_a_permit_only(tiny_store, tiny_rows):
    store = FeatureStore.open(tiny_store)
    labels = store.test_labels(TestPermit("0123456789abcdef", "frozen"))
    np.testing.assert_array_equal(labels, tiny_rows("test", 7)["labels"])
    with pytest.raises(SealedTestError, match="TestPermit"):
        store.test_labels(SimpleNamespace(run_id="x", reason="because"))


def test_store_manifest_counts_lengths_and_histogram(tiny_store, tiny_rows):
    manifest = read_manifest(tiny_store)
    rows = tiny_rows("train", 20)
    lengths = [len(row) for row in rows["audio"]]
    assert manifest.counts == {"train": 20, "valid": 6, "test": 7}
    assert manifest.lengths["train"]["audio"] == {
        "min": min(lengths),
        "mean": pytest.approx(np.mean(lengths), abs=1e-4),
        "max": max(lengths),
    }
    assert sum(manifest.label_histogram["test"]["seven_class"]) == 7
    negative = int((rows["labels"] < 0).sum())
    assert manifest.label_histogram["train"]["three_class"][0] == negative


def test_store_view_travels_to_another_process_as_a_path(tiny_store):
    view = FeatureStore.open(tiny_store).split("train")
    travelled = pickle.dumps(view)
    assert len(travelled) < 500
    np.testing.assert_array_equal(
        pickle.loads(travelled).frames("audio", 1), view.frames("audio", 1)
    )


def test_store_row_out_of_range_raises_index_error(tiny_store):
    view = FeatureStore.open(tiny_store).split("valid")
    for row in (-1, 6):
        with pytest.raises(IndexError, match="which has 6 rows"):
            view.token_ids(row)


def test_store_unknown_split_names_the_known_ones(tiny_store):
    with pytest.raises(UsageError, match="unknown split 'dev'; known: test, train, valid"):
        FeatureStore.open(tiny_store).split("dev")


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_store_truncated_file_says_damaged(tiny_store, keep):
    path = tiny_store / "train.arrow"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"train\.arrow is damaged"):
        FeatureStore.open(tiny_store).split("train")


def test_store_missing_file_says_so(tiny_store):
    (tiny_store / "valid.arrow").unlink()
    with pytest.raises(StoreError, match=r"valid\.arrow is missing"):
        FeatureStore.open(tiny_store).split("valid")


def test_store_file_of_another_corpus_is_noticed(tiny_store):
    (tiny_store / "valid.arrow").write_bytes((tiny_store / "test.arrow").read_bytes())
    with pytest.raises(StoreError, match="has 7 utterances, its manifest says 6"):
        FeatureStore.open(tiny_store).split("valid")


def test_writer_left_without_finish_leaves_nothing(tmp_path, tiny_rows, write_store):
    key = StoreKey(dataset="x", alignment="aligned", distribution="iid")
    manifest = write_store(tmp_path / "shape")
    with make_writer(tmp_path / "store", key, manifest) as writer:
        writer.add("train", **tiny_rows("train", 5))
        assert list((tmp_path / "store" / "x").iterdir()) != []
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert list((tmp_path / "store" / "x").iterdir()) == []


def test_writer_existing_corpus_needs_overwrite(tmp_path, write_store):
    before = write_store(tmp_path)
    with pytest.raises(StoreError, match=r"already stored in .*add --overwrite"):
        write_store(tmp_path, seed=1)
    after = write_store(tmp_path, seed=1, overwrite=True)
    folder = before.key.folder(tmp_path)
    assert read_manifest(folder).content_sha256 == after.content_sha256 != before.content_sha256
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_writer_failed_overwrite_keeps_the_old_corpus(tmp_path, write_store, tiny_rows):
    before = write_store(tmp_path)
    with make_writer(tmp_path, before.key, before, overwrite=True) as writer:
        writer.add("valid", **tiny_rows("valid", 6))
        with pytest.raises(StoreError, match=r"split train .* has no utterances"):
            writer.finish()
    assert read_manifest(before.key.folder(tmp_path)) == before


def test_writer_removes_what_a_killed_writer_left(tmp_path, write_store):
    script = (
        "import os, pathlib, sys\n"
        "from cider.data.schema import StoreKey, Tokenizer\n"
        "from cider.data.writer import StoreWriter\n"
        "key = StoreKey(dataset='tiny', alignment='unaligned', distribution='iid')\n"
        "shape = {'audio': 3, 'vision': 4}\n"
        "writer = StoreWriter(pathlib.Path(sys.argv[1]), key, tokenizer=Tokenizer(name='t', "
        "vocab_size=9), widths=shape, max_lengths={'text': 9, **shape}, source={}, "
        "default_encoder='scratch')\n"
        "writer.__enter__()\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    (left,) = (tmp_path / "tiny").glob(".writing-*")
    write_store(tmp_path, dataset="tiny", overwrite=True)
    assert left.exists()  # It might belong to a writer that has only just started.
    os.utime(left / "writing.lock", (0, 0))
    write_store(tmp_path, dataset="tiny", overwrite=True)
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["unaligned-iid"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("ids", "train_0", "id 'train_0' occurs twice"),
        ("labels", 3.5, r"utterance 'train_2': the label must be in \[-3, 3\], got 3.5"),
        ("labels", np.nan, r"the label must be in \[-3, 3\], got nan"),
        ("token_ids", np.array([], np.int32), "text must have 1 to 9 steps, got 0"),
        ("token_ids", np.array([101.0, 102.0]), "token ids must be one row of integers"),
        ("token_ids", np.array([101, 400]), r"token ids must be in \[0, 399\]"),
        ("token_ids", np.array([-1, 4]), r"got -1 to 4"),
        ("audio", np.zeros((0, 3), np.float32), "audio must have 1 to 12 steps, got 0"),
        ("audio", np.zeros((13, 3), np.float32), "audio must have 1 to 12 steps, got 13"),
        ("audio", np.zeros((2, 4), np.float32), r"audio must be float32 \(steps, 3\)"),
        ("vision", np.zeros((2, 4), np.float64), "vision must be float32"),
        ("vision", np.full((2, 4), np.nan, np.float32), "vision has values that are not finite"),
    ],
)
def test_writer_row_that_does_not_fit_is_named(
    tmp_path, write_store, tiny_rows, column, value, message
):
    manifest = write_store(tmp_path)
    key = StoreKey(dataset="bad", alignment="unaligned", distribution="iid")
    rows = tiny_rows("train", 4)
    rows[column][2] = value
    with pytest.raises(StoreError, match=message), make_writer(tmp_path, key, manifest) as writer:
        writer.add("train", **rows)
    assert not key.folder(tmp_path).exists()


def test_writer_columns_of_unequal_length_are_refused(tmp_path, write_store, tiny_rows):
    manifest = write_store(tmp_path)
    key = StoreKey(dataset="bad", alignment="unaligned", distribution="iid")
    rows = tiny_rows("train", 4)
    rows["texts"] = rows["texts"][:3]
    with (
        pytest.raises(StoreError, match="3 texts for 4 ids"),
        make_writer(tmp_path, key, manifest) as writer,
    ):
        writer.add("train", **rows)


def make_writer(root, key, like, **options):
    return StoreWriter(
        root,
        key,
        tokenizer=like.tokenizer,
        widths=like.widths,
        max_lengths=like.max_lengths,
        source=like.source,
        default_encoder="scratch",
        **options,
    )


def test_writer_store_root_that_is_a_file_gets_a_sentence(tmp_path, write_store):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_store(tmp_path / "store")


def test_find_store_prefers_the_partition_of_the_task(tmp_path):
    for task in ("any", "seven_class"):
        key = StoreKey(dataset="mosi", alignment="aligned", distribution="ood", task=task)
        key.folder(tmp_path).mkdir(parents=True)
    found = {
        task: find_store(tmp_path, "mosi", "aligned", "ood", task).name
        for task in ("three_class", "seven_class")
    }
    assert found == {"three_class": "aligned-ood", "seven_class": "aligned-ood-seven_class"}


@pytest.mark.parametrize("dataset", ["mosi", "mosei"])
def test_find_store_absent_published_corpus_says_where_features_come_from(tmp_path, dataset):
    with pytest.raises(StoreError) as caught:
        find_store(tmp_path, dataset, "unaligned", "iid", "three_class")
    text = str(caught.value)
    assert caught.value.exit_code == 1
    for part in ("MMSA", "aligned_50.pkl", f"data import PATH --dataset {dataset}"):
        assert part in text
    assert f"--dataset synthetic-{dataset}" in text


def test_find_store_absent_own_corpus_lists_what_is_stored(tmp_path, write_store):
    write_store(tmp_path)
    with pytest.raises(StoreError, match="stored are: tiny/unaligned-iid"):
        find_store(tmp_path, "mine", "unaligned", "iid", "three_class")


def test_manifest_is_plain_json(tiny_store):
    values = json.loads((tiny_store / "manifest.json").read_text())
    assert values["schema_version"] == 1
    assert set(values["files"]) == {path.name for path in tiny_store.glob("*.arrow")}
