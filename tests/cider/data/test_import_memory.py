"""Importing a feature pickle holds a few rows of it, not its arrays."""

import gzip
import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
from typing import ClassVar

import joblib
import numpy as np
import pytest

from cider.data.array_on_disk import ArrayOnDisk, BytesOnDisk
from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle
from cider.data.safe_pickle import read_pickle
from cider.data.spool import Spool, TextOnDisk
from cider.data.store import FeatureStore
from cider.errors import StoreError, UnsafePickleError

IMPORT = """
import json, re, sys
from pathlib import Path
import pyarrow
from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle

def status(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

root, small, large = map(Path, sys.argv[1:])
# What the first import brings in by importing modules is not the second one's.
import_pickle(root, ImportFile(path=small), dataset="small", distribution="iid")
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
import_pickle(root, ImportFile(path=large), dataset="large", distribution="iid")
print(json.dumps(status("VmHWM") - before))
"""


def corpus(rows, lengths=(50, 300, 120), widths=(40, 20)):
    """Return a dictionary as the MMSA files hold it."""
    rng = np.random.default_rng(0)
    content = {}
    for split, count in {"train": rows, "valid": 3, "test": 3}.items():
        text_bert = np.zeros((count, 3, lengths[0]), np.float32)
        text_bert[:, 0, :4], text_bert[:, 1, :4] = [101, 2000, 2001, 102], 1
        content[split] = {
            "raw_text": [f"utterance {row}" for row in range(count)],
            "id": [f"{split}${row}" for row in range(count)],
            "text": np.zeros((count, lengths[0], 100), np.float32),
            "text_bert": text_bert,
            "audio": rng.standard_normal((count, lengths[1], widths[0]), np.float32),
            "vision": rng.standard_normal((count, lengths[2], widths[1])),
            "regression_labels": rng.integers(-9, 10, count) / 3,
            "audio_lengths": rng.integers(1, 40, count).tolist(),
            "vision_lengths": rng.integers(1, 40, count).tolist(),
        }
        for name in ("audio", "vision"):
            content[split][name][:, 40:] = 0  # As in real files, most of it is padding.
    return content


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 does its strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, data):
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes


def dump(content, path, form):
    """Write a feature file in one of the forms that such files come in."""
    program, _, how = form.partition(" ")
    if program == "joblib":
        joblib.dump(content, path, compress=(how, 1) if how else 0)
    elif program == "python2":
        with path.open("wb") as file:
            Python2Pickler(file, protocol=2).dump(content)
    elif program == "gzip":
        path.write_bytes(gzip.compress(pickle.dumps(content, protocol=4), 1))
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(how)))


@pytest.mark.parametrize("form", ["pickle 4", "pickle 2", "python2", "gzip", "joblib zlib"])
def test_import_holds_a_fraction_of_the_largest_array(form, tmp_path):
    files = []
    for name, rows in (("small", 5), ("large", 1500)):
        path = tmp_path / f"{name}.pkl"
        content = corpus(rows)
        dump(content, path, form)
        files.append(str(path))
    largest = content["train"]["audio"].nbytes
    assert largest > 60 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(tmp_path / "store"), *files],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(done.stdout) < largest


@pytest.mark.parametrize(
    "form",
    [
        *("pickle 0", "pickle 1", "pickle 2", "python2", "pickle 4", "pickle 5"),
        *("gzip", "joblib", "joblib gzip", "joblib xz"),
    ],
)
def test_stored_rows_are_those_of_the_file_in_every_form(form, tmp_path):
    content, path = corpus(200), tmp_path / "features.pkl"
    dump(content, path, form)
    result = import_pickle(tmp_path, ImportFile(path=path), dataset="mine", distribution="iid")
    assert result.manifest.source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    split = FeatureStore.open(tmp_path / "mine" / "unaligned-iid").split("train")
    given = content["train"]
    for row in (0, 63, 64, 199):
        for name in ("audio", "vision"):
            wanted = given[name][row, : given[f"{name}_lengths"][row]].astype(np.float32)
            np.testing.assert_array_equal(split.frames(name, row), wanted)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_large_arrays_stay_in_the_file_and_small_ones_do_not(protocol, tmp_path):
    path = tmp_path / "arrays.pkl"
    large = np.arange(4000, dtype=">f8").reshape(100, 40)
    content = {
        "large": large,
        "small": large[:2],
        "turned": np.asfortranarray(large),
        "b": b"x" * 9000,
    }
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_pickle(path, on_disk_from=8000)
    assert type(found["large"]) is ArrayOnDisk
    assert type(found["b"]) is BytesOnDisk
    assert found["b"].read() == content["b"]
    assert (found["large"].shape, found["large"].ndim, len(found["large"])) == ((100, 40), 2, 100)
    assert (found["large"].dtype, found["large"].nbytes) == (large.dtype, large.nbytes)
    np.testing.assert_array_equal(found["large"][:], large)
    np.testing.assert_array_equal(found["large"][98:200], large[98:])
    assert found["large"][7:7].shape == (0, 40)
    with pytest.raises(ValueError, match="step of 2"):
        found["large"][::2]
    for name in ("small", "turned"):
        assert type(found[name]) is np.ndarray
        np.testing.assert_array_equal(found[name], content[name])


def test_a_file_that_gets_shorter_meanwhile_is_told(tmp_path):
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({"large": np.ones((100, 40))}, protocol=4))
    found = read_pickle(path, on_disk_from=8000)["large"]
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(StoreError, match="became shorter"):
        found[:]


def test_a_truncated_array_is_told_before_anything_is_stored(tmp_path):
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({"large": np.ones((100, 40))}, protocol=4)[:20000])
    with pytest.raises(StoreError, match="truncated"):
        read_pickle(path, on_disk_from=8000)


def test_arrays_that_stand_in_the_file_in_another_form_are_kept_and_then_gone(tmp_path):
    path, room = tmp_path / "arrays.pkl", tmp_path / "store"
    content = {"large": np.arange(4000.0).reshape(100, 40), "text": "\u00e9" * 9000}
    for data in (pickle.dumps(content, 2), gzip.compress(pickle.dumps(content, 4))):
        path.write_bytes(data)
        with Spool(room) as spool:
            found = read_pickle(path, on_disk_from=8000, spool=spool)
            assert type(found["large"]) is ArrayOnDisk
            np.testing.assert_array_equal(found["large"][3:5], content["large"][3:5])
            assert spool.size >= content["large"].nbytes
            assert list(room.iterdir()) == [], "it has no name"
        with pytest.raises(ValueError, match="closed"):
            found["large"][:]


def test_an_array_whose_bytes_are_text_itself_is_read(tmp_path):
    """Python 2's strings, after somebody loaded them as text and saved them again."""
    path, array = tmp_path / "array.pkl", np.arange(4000.0).reshape(100, 40)
    dump({"large": array}, path, "python2")
    whole = path.read_bytes()
    raw = array.tobytes()
    text = raw.decode("latin-1").encode("utf-8")
    old, new = (code + struct.pack("<I", len(data)) + data for code, data in
                ((b"T", raw), (b"X", text)))  # fmt: skip
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    with Spool(tmp_path) as spool:
        found = read_pickle(path, on_disk_from=8000, spool=spool)["large"]
    np.testing.assert_array_equal(found, array)


def test_text_that_stands_for_no_bytes_stays_text_that_was_passed_over(tmp_path):
    path = tmp_path / "text.pkl"
    path.write_bytes(pickle.dumps({"text": "\u03b1" * 9000}, 2))
    with Spool(tmp_path) as spool:
        found = read_pickle(path, on_disk_from=8000, spool=spool)["text"]
        assert type(found) is TextOnDisk
        with pytest.raises(ValueError, match="latin-1"):
            found.latin1()
    assert read_pickle(path, on_disk_from=8000) == {"text": "\u03b1" * 9000}


def test_a_text_that_is_unpacked_again_and_again_is_refused(tmp_path):
    """A few bytes of program for each copy would fill the disk."""
    text = b"X" + struct.pack("<I", 9000) + b"x" * 9000 + b"q\x01"
    once = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    path = tmp_path / "again.pkl"
    path.write_bytes(b"\x80\x02]" + text + b"a" + (once + b"a") * 50 + b".")
    with (
        Spool(tmp_path) as spool,
        pytest.raises(UnsafePickleError, match="builds more out of its bytes than there are"),
    ):
        read_pickle(path, on_disk_from=8000, spool=spool)
    assert spool.size < 5 * path.stat().st_size


def test_too_little_room_is_told_before_an_array_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "features.pkl"
    dump(corpus(200), path, "gzip")
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match="1000000 bytes are free and the next array needs 4000000"):
        import_pickle(tmp_path / "s", ImportFile(path=path), dataset="mine", distribution="iid")
    assert list((tmp_path / "s").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    path = tmp_path / "features.pkl"
    dump(corpus(200), path, "gzip")
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match=r"unpacked into .*store, which cannot be written"):
        import_pickle(tmp_path / "store", ImportFile(path=path), dataset="m", distribution="iid")


def test_an_import_that_fails_ends_the_thread_that_hashes(tmp_path):
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps({"train": {}}, 4))
    os.truncate(path, 2**33)  # Zeros that take no room, and seconds to hash.
    before, seen = threading.active_count(), []
    with pytest.raises(StoreError):
        import_pickle(
            tmp_path,
            ImportFile(path=path),
            dataset="mine",
            distribution="iid",
            progress=lambda what, done, total: seen.append((what, done, total)),
        )
    assert threading.active_count() == before
    assert ("hash features.pkl", 2**33, 2**33) not in seen
