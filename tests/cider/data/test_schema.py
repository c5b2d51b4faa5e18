import dataclasses
import json
from pathlib import Path

import pytest

from cider.data.schema import Manifest, StoreKey, Tokenizer, read_manifest
from cider.errors import StoreError, UsageError


def key(**changes):
    values = {"dataset": "mosi", "alignment": "unaligned", "distribution": "iid", **changes}
    return StoreKey(**values)


def test_store_key_folder_names_dataset_alignment_and_distribution():
    assert key().folder(Path("root")) == Path("root/mosi/unaligned-iid")
    ood = key(distribution="ood", task="seven_class")
    assert ood.folder(Path("root")) == Path("root/mosi/unaligned-ood-seven_class")


@pytest.mark.parametrize(
    "name", ["", "..", ".", ".hidden", "a/b", "a b", "a\\b", "caf\u00e9", "a\n"]
)
def test_store_key_dataset_that_is_no_plain_name_is_refused(name):
    with pytest.raises(UsageError, match="dataset name must"):
        key(dataset=name)


@pytest.mark.parametrize("field", ["alignment", "distribution", "task"])
def test_store_key_unknown_value_names_the_allowed_ones(field):
    with pytest.raises(UsageError, match=rf"{field} must be one of .*, got 'other'"):
        key(**{field: "other"})


def test_manifest_written_and_read_is_equal(tiny_store):
    manifest = read_manifest(tiny_store)
    assert Manifest.from_json(manifest.to_json(), "m") == manifest
    assert manifest.key == StoreKey(dataset="tiny", alignment="unaligned", distribution="iid")
    assert manifest.tokenizer == Tokenizer(name="tiny", vocab_size=400)


def test_manifest_padded_lengths_of_a_split_override_the_common_ones(tiny_store):
    manifest = read_manifest(tiny_store)
    other = {"text": 75, "audio": 75, "vision": 75}
    changed = dataclasses.replace(manifest, split_max_lengths={"test": other})
    assert changed.padded_lengths("test") == other
    assert changed.padded_lengths("train") == manifest.max_lengths


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_manifest_of_another_schema_version_is_refused_by_number(tiny_store, version):
    values = json.loads((tiny_store / "manifest.json").read_text())
    values["schema_version"] = version
    with pytest.raises(StoreError, match=rf"schema version {version!r}, this program reads 1"):
        Manifest.from_json(json.dumps(values), "m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 1}', "not a corpus manifest: dataset"),
    ],
)
def test_manifest_that_is_none_gets_a_sentence(text, message):
    with pytest.raises(StoreError, match=message):
        Manifest.from_json(text, "m")


def test_manifest_field_of_another_type_is_named(tiny_store):
    values = json.loads((tiny_store / "manifest.json").read_text())
    values["widths"] = {"audio": "many", "vision": 4}
    with pytest.raises(StoreError, match=r"widths\.audio"):
        Manifest.from_json(json.dumps(values), "m")


def test_read_manifest_of_another_folder_says_it_is_no_corpus(tmp_path):
    with pytest.raises(StoreError, match=r"is not a stored corpus: it has no manifest\.json"):
        read_manifest(tmp_path)
