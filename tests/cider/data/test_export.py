import pickle

import numpy as np
import pytest

from cider.data.export import export_corpus
from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle
from cider.errors import StoreError, UsageError


def assert_same_corpus(found, expected):
    """Equal keys in equal order, equal containers, dtypes and values; -inf has become 0."""
    assert list(found) == list(expected)
    for split, source in expected.items():
        assert list(found[split]) == list(source)
        for key, value in source.items():
            back = found[split][key]
            assert type(back) is type(value), key
            if isinstance(value, list):
                assert back == value
                continue
            assert back.dtype == value.dtype, key
            if value.dtype.kind == "f":
                value = np.where(np.isneginf(value), value.dtype.type(0), value)
            np.testing.assert_array_equal(back, value, strict=True)


def round_trip(tmp_path, path, alignment):
    file = ImportFile(path=path, alignment=alignment)
    result = import_pickle(tmp_path / "store", file, dataset="mosi", distribution="iid")
    out = tmp_path / "out.pkl"
    size = export_corpus(result.manifest.key.folder(tmp_path / "store"), out)
    assert size == out.stat().st_size
    return pickle.loads(out.read_bytes())


@pytest.mark.parametrize("alignment", ["aligned", "unaligned"])
def test_export_of_a_recorded_file_gives_it_back(tmp_path, golden_pickles, alignment):
    path = golden_pickles / f"{alignment}_50.pkl"
    assert_same_corpus(round_trip(tmp_path, path, alignment), pickle.loads(path.read_bytes()))


def test_export_keeps_source_lengths_of_an_aligned_file(tmp_path, make_mmsa, save_pickle):
    content = make_mmsa(aligned=True)
    for split in content.values():
        del split["text"]  # BERT vectors are not stored.
        split["audio_lengths"] = [10] * len(split["id"])
        split["vision_lengths"] = np.array(split["vision_lengths"], np.int32)
    path = save_pickle(tmp_path / "aligned.pkl", content)
    assert_same_corpus(round_trip(tmp_path, path, "aligned"), content)


def test_export_keeps_dtypes_names_and_class_labels_of_the_source(tmp_path, make_mmsa, save_pickle):
    content = make_mmsa()
    content["dev"] = content.pop("valid")
    for split in content.values():
        del split["text"]
        split["text_bert"] = split["text_bert"].astype(np.int64)
        split["raw_text"] = split["raw_text"].astype(str)
        split["classification_labels"] = split["classification_labels"].astype(np.float32)
    content["train"]["classification_labels"][0] = 1
    path = save_pickle(tmp_path / "unaligned.pkl", content)
    found = round_trip(tmp_path, path, "unaligned")
    # Splits come in the order of the store.
    assert list(found) == ["train", "dev", "test"]
    assert_same_corpus({name: found[name] for name in content}, content)


def test_export_of_a_corpus_that_was_no_pickle_has_every_mmsa_key(tmp_path, tiny_store, tiny_rows):
    out = tmp_path / "tiny.pkl"
    export_corpus(tiny_store, out)
    found = pickle.loads(out.read_bytes())["train"]
    rows = tiny_rows("train", 20)
    assert found["audio"].shape == (20, 12, 3)
    assert found["text_bert"].shape == (20, 3, 9)
    assert found["text_bert"][:, 1].sum(axis=1).tolist() == [len(ids) for ids in rows["token_ids"]]
    assert found["vision_lengths"] == [len(frames) for frames in rows["vision"]]
    assert found["annotations"].tolist() == rows["annotations"]
    np.testing.assert_array_equal(found["regression_labels"], rows["labels"])


def test_export_file_that_exists_needs_overwrite(tmp_path, tiny_store):
    out = tmp_path / "tiny.pkl"
    out.write_bytes(b"precious")
    with pytest.raises(StoreError, match="exists; add --overwrite"):
        export_corpus(tiny_store, out)
    assert out.read_bytes() == b"precious"
    export_corpus(tiny_store, out, overwrite=True)
    assert pickle.loads(out.read_bytes())["test"]["id"].tolist()[0] == "test_0"


def test_export_into_a_missing_folder_is_one_sentence_and_leaves_nothing(tmp_path, tiny_store):
    with pytest.raises(StoreError, match="cannot be written"):
        export_corpus(tiny_store, tmp_path / "none" / "tiny.pkl")
    assert not (tmp_path / "none").exists()


def test_export_unknown_format_names_the_known_one(tmp_path, tiny_store):
    with pytest.raises(UsageError, match="unknown export format 'csv'; known: mmsa"):
        export_corpus(tiny_store, tmp_path / "x", format_name="csv")
