"""Honest files come back as they were written, whoever wrote them."""

import bz2
import collections
import gzip
import lzma
import pickle
import tracemalloc
import zlib

import joblib
import numpy as np
import pytest
from hostile_pickles import CODECS, honest_content

from cider.data.safe_pickle import read_pickle

PROTOCOLS = range(6)


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.pkl"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickle_of_any_protocol_comes_back_as_written(path, protocol):
    path.write_bytes(pickle.dumps(honest_content(), protocol))

    assert_same(read_pickle(path), honest_content())


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_joblib_file_of_any_compression_comes_back_as_written(path, codec, protocol):
    joblib.dump(honest_content(), path, compress=codec, protocol=protocol)

    assert_same(read_pickle(path), honest_content())


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_compressed_pickle_comes_back_as_written(path, compress):
    path.write_bytes(compress(pickle.dumps(honest_content())))

    assert_same(read_pickle(path), honest_content())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_a_pickle_can_be_changed_in_place(path, protocol):
    path.write_bytes(pickle.dumps(np.zeros(5000, np.float32), protocol))

    array = read_pickle(path)
    array[3] = 1.0

    assert array.sum() == 1.0


def test_big_endian_arrays_keep_their_values(path):
    expected = np.arange(5, dtype=">f4")
    path.write_bytes(pickle.dumps(expected))
    np.testing.assert_array_equal(read_pickle(path), expected)
    joblib.dump(expected, path)
    np.testing.assert_array_equal(read_pickle(path), expected)


def test_ordered_dict_comes_back_as_a_dict_in_order(path):
    path.write_bytes(pickle.dumps(collections.OrderedDict(b=1, a=2)))

    assert_same(read_pickle(path), {"b": 1, "a": 2})


def test_pickle_written_by_python_2_comes_back_in_latin_1(path):
    # pickle.dumps({'a': 'h\xe9', 'x': numpy.float32 array}) in protocols 0 and 2 of Python 2
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt"
        b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x00\\x00\\x80?'\ntb"
    )
    path.write_bytes(b"(dp0\nS'a'\nS'h\\xe9'\nsS'x'\n" + array + b"s.")
    assert_same(read_pickle(path), {"a": "h\u00e9", "x": np.array([1.0], np.float32)})
    path.write_bytes(b"\x80\x02}q\x00U\x01aU\x02h\xe9s.")
    assert_same(read_pickle(path), {"a": "h\u00e9"})


def test_array_stored_twice_comes_back_as_one(path):
    array = np.arange(3)
    path.write_bytes(pickle.dumps([array, array]))

    one, other = read_pickle(path)

    assert one is other


def test_reading_with_progress_reports_up_to_the_whole_file(path):
    path.write_bytes(pickle.dumps(np.zeros(3 * 2**20)))
    seen = []

    read_pickle(path, progress=lambda done, total: seen.append((done, total)))

    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize("write", [pickle.dump, joblib.dump], ids=["pickle", "joblib"])
def test_reading_holds_hardly_more_than_the_arrays(path, write):
    with path.open("wb") as file:
        write({"audio": np.zeros(4 * 2**20), "vision": np.zeros(2**20, np.float32)}, file)
    tracemalloc.start()
    try:
        value = read_pickle(path)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1.2 * sum(array.nbytes for array in value.values())
