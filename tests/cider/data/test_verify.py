import json

import pytest

from cider.data.verify import verify_corpus
from cider.errors import StoreError


def test_verify_intact_corpus_finds_nothing(tiny_store):
    result = verify_corpus(tiny_store)
    assert result.faults == []
    assert result.content_sha256 == result.manifest.content_sha256


@pytest.mark.parametrize("name", ["train.arrow", "valid.labels.arrow", "test.labels.arrow"])
def test_verify_one_flipped_bit_names_the_file(tiny_store, name):
    path = tiny_store / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (fault,) = verify_corpus(tiny_store).faults
    assert f"{name} has changed since it was written" in fault


def test_verify_missing_file_is_named(tiny_store):
    (tiny_store / "test.arrow").unlink()
    (fault,) = verify_corpus(tiny_store).faults
    assert "test.arrow" in fault


def test_verify_manifest_of_other_content_is_noticed(tiny_store):
    path = tiny_store / "manifest.json"
    values = json.loads(path.read_text())
    values["max_lengths"]["text"] += 1
    path.write_text(json.dumps(values))
    (fault,) = verify_corpus(tiny_store).faults
    assert "is not the one its manifest names" in fault


def test_verify_labels_of_other_utterances_are_noticed(tmp_path, write_store, tiny_rows):
    first = write_store(tmp_path, dataset="a").key.folder(tmp_path)
    second = write_store(tmp_path, dataset="b", seed=1).key.folder(tmp_path)
    swapped = "train.labels.arrow"
    (first / swapped).write_bytes((second / swapped).read_bytes())
    assert len(verify_corpus(first).faults) == 1


def test_verify_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is not a stored corpus"):
        verify_corpus(tmp_path)
