"""Importing a feature pickle holds a few rows of it, not its arrays."""

import json
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest

from cider.data.array_on_disk import ArrayOnDisk, BytesOnDisk
from cider.data.import_plan import ImportFile
from cider.data.ingest import import_pickle
from cider.data.safe_pickle import read_pickle
from cider.data.store import FeatureStore
from cider.errors import StoreError

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
    return content


def test_import_holds_a_fraction_of_the_largest_array(tmp_path):
    files = []
    for name, rows in (("small", 5), ("large", 1500)):
        path = tmp_path / f"{name}.pkl"
        content = corpus(rows)
        path.write_bytes(pickle.dumps(content, protocol=4))
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


@pytest.mark.parametrize("form", ["pickle 2", "pickle 4", "pickle 5", "joblib", "joblib gzip"])
def test_stored_rows_are_those_of_the_file_in_every_form(form, tmp_path):
    content, path = corpus(200), tmp_path / "features.pkl"
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    else:
        joblib.dump(content, path, compress=("gzip", 1) if form.endswith("gzip") else 0)
    import_pickle(tmp_path, ImportFile(path=path), dataset="mine", distribution="iid")
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
