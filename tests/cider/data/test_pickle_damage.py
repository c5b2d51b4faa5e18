"""Sizes that are lies, bombs, damage and other kinds of file each give one sentence, at once."""

import bz2
import contextlib
import gzip
import lzma
import os
import pickle
import tracemalloc
import zlib

import hypothesis.strategies as st
import joblib
import numpy as np
import pytest
from hostile_pickles import CODECS, Call, array_call, honest_content, nested_twice, refused
from hypothesis import given, settings

from cider.data import pickle_machine, pickle_source
from cider.data.safe_pickle import read_pickle
from cider.errors import CiderError, StoreError

HEAD = b"\x80\x04"
TEN_GIB = 10 * 2**30


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.pkl"


@pytest.mark.parametrize(
    "claim",
    [
        b"\x8e" + TEN_GIB.to_bytes(8, "little"),
        b"\x96" + TEN_GIB.to_bytes(8, "little"),
        b"\x8d" + TEN_GIB.to_bytes(8, "little"),
        b"\x95" + TEN_GIB.to_bytes(8, "little"),
        b"\x8e" + b"\xff" * 8,
        b"\x95" + b"\xff" * 8,
        b"B\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff",
    ],
    ids=lambda claim: claim.hex(),
)
@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, zlib.compress], ids=lambda c: c.__name__
)
def test_header_that_claims_gigabytes_fails_without_memory(path, claim, compress):
    path.write_bytes(compress(HEAD + claim + b"abc" * 20))
    tracemalloc.start()
    try:
        sentence = refused(path, StoreError)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "truncated" in sentence or "expands to more" in sentence
    assert peak < 20 * 2**20


def test_memo_index_of_four_billion_takes_no_memory(path):
    path.write_bytes(HEAD + b"Nr\xff\xff\xff\xff.")
    tracemalloc.start()
    try:
        assert read_pickle(path) is None
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10 * 2**20


def test_compressed_file_that_expands_too_far_is_refused(path, monkeypatch):
    monkeypatch.setattr(pickle_source, "EXPANSION_FLOOR_BYTES", 2**20)
    zeros = pickle.dumps(np.zeros(2**20), 4)
    for compress in (gzip.compress, zlib.compress, bz2.compress, lzma.compress):
        path.write_bytes(compress(zeros))
        assert "expands to more than" in refused(path, StoreError)


def test_too_many_instructions_and_containers_are_refused(path, monkeypatch):
    path.write_bytes(pickle.dumps([[] for _ in range(1000)]))
    monkeypatch.setattr(pickle_machine, "MAX_CONTAINERS", 900)
    assert "more than 900 lists" in refused(path)
    monkeypatch.setattr(pickle_machine, "MAX_OPERATIONS", 500)
    assert "more than 500 separate" in refused(path)


@pytest.mark.parametrize("make", [list, tuple, lambda pair: dict(enumerate(pair))])
def test_containers_that_hold_each_other_twice_are_refused_at_once(path, make):
    path.write_bytes(pickle.dumps(nested_twice(make, 60)))

    assert "without a reasonable end" in refused(path)


def test_tuples_that_take_forever_to_hash_are_refused_at_once(path):
    bomb = pickle.dumps(nested_twice(tuple, 60))
    path.write_bytes(b"\x80\x04}" + bomb[2:-1] + b"Ns.")

    assert "inside a dict key or set" in refused(path)


LATIN_1 = b"\x8c\x06latin1\x94"  # after PUT number 1
TEXT = b"X\x00\x00\x01\x00" + b"x" * 2**16 + b"\x94"


@pytest.mark.parametrize(
    "once",
    [
        b"c_codecs\nencode\nh\x00h\x01\x86R",
        b"cbuiltins\nbytearray\nh\x00h\x01\x86R",
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01J"
        + (2**16).to_bytes(4, "little")
        + b"\x85cnumpy\ndtype\n\x8c\x02u1\x85R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89h\x00tb",
    ],
    ids=["encode", "bytearray", "array"],
)
def test_text_turned_into_bytes_again_and_again_is_refused(path, once):
    path.write_bytes(HEAD + TEXT + LATIN_1 + b"0" + once + b"0" + b".")
    assert read_pickle(path) == "x" * 2**16
    path.write_bytes(HEAD + TEXT + LATIN_1 + once * 300 + b".")
    assert "more out of its bytes than there are" in refused(path)


def test_integers_of_equal_hash_are_refused_as_keys(path):
    path.write_bytes(pickle.dumps(dict.fromkeys(range(0, 9 * (2**61 - 1), 2**61 - 1))))

    assert "the integer 2305843009213693951" in refused(path)


def test_shape_that_takes_forever_to_print_is_refused_at_once(path):
    bomb = nested_twice(list, 60)
    path.write_bytes(pickle.dumps(array_call(state=(1, (bomb,), np.dtype("f4"), False, b"1234"))))

    assert "of the shape (a list)" in refused(path)


@pytest.mark.parametrize("depth", [150, 200_000])
def test_containers_too_deep_are_refused(path, depth):
    path.write_bytes(b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b".")

    assert "without a reasonable end" in refused(path)


def test_container_that_holds_itself_is_refused(path):
    ring = []
    ring.append({"ring": ring})
    path.write_bytes(pickle.dumps(ring))

    assert "without a reasonable end" in refused(path)


# Damaged files and files of another kind.


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickle_cut_anywhere_fails_with_one_sentence(path, protocol):
    data = pickle.dumps({"id": np.array(["a", "b"]), "x": np.zeros(3), "l": [1, 2.5]}, protocol)
    for size in range(1, len(data), 3):
        path.write_bytes(data[:size])
        refused(path, StoreError)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_joblib_file_cut_anywhere_fails_with_one_sentence(path, codec):
    joblib.dump({"x": np.zeros(30), "text": np.array(["a"], object)}, path, compress=codec)
    data = path.read_bytes()
    for size in range(1, len(data), 11):
        path.write_bytes(data[:size])
        refused(path, StoreError)


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "is empty"),
        (b"id,split,label\n1,train,0.5\n", "not a pickle"),
        (b'{"train": []}\n', "not a pickle"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x04\x22\x4d\x18rest", "lz4"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"ZF0x1234", "joblib 0.9"),
        (b"\x93NUMPY\x01\x00", "not a pickle"),
        (b"\x89HDF\r\n\x1a\n", "not a pickle"),
        (b"\x1f\x8bnot really gzip", "not a pickle"),
        (b"\x80\x04N.\x80\x04N.", "goes on after its first object"),
        (b"\x80\x04NN.", "not a pickle"),
        (b"\x80\x04\xff.", "not a pickle"),
        (b"\x80\x04h\x05.", "not a pickle"),
        (b"\x80\x04\x8c\x02o\n\x8c\x01x\x93.", "not a pickle"),
        (b"I12x\n.", "not a pickle"),
        (b"I" + b"9" * 5000 + b"\n.", "not a pickle"),
        (b"S'unfinished\n.", "not a pickle"),
        (b"\x80\x04\x8c\x02\xff\xff.", "not a pickle"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_file_of_another_kind_fails_with_one_sentence(path, content, phrase):
    path.write_bytes(content)

    assert phrase in refused(path, StoreError)


def test_path_that_is_not_a_readable_file_fails_with_one_sentence(tmp_path):
    assert "there is no file" in refused(tmp_path / "absent.pkl", StoreError)
    assert "is a folder" in refused(tmp_path, StoreError)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe", StoreError)


SEEDS = [pickle.dumps(honest_content(), protocol) for protocol in range(6)]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1, max_size=6),
    hostile=st.booleans(),
)
def test_pickle_changed_anywhere_is_read_or_refused_and_runs_nothing(
    tmp_path_factory, seed, changes, hostile
):
    folder = tmp_path_factory.mktemp("changed")
    data = bytearray(seed)
    for position, replacement in changes:
        start = int(position * len(data))
        data[start : start + max(len(replacement), 1)] = replacement
    if hostile:
        call = pickle.dumps(Call(os.system, f"touch {folder / 'canary'}"), 0)[:-1]
        start = int(changes[0][0] * len(data))
        data[start:start] = call
    (folder / "features.pkl").write_bytes(data)

    with contextlib.suppress(CiderError):
        read_pickle(folder / "features.pkl")
    assert not (folder / "canary").exists()
