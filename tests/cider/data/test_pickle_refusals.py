"""Files that call, instantiate or refer to something are refused by its name, and nothing is run.

They are written by the real pickle, joblib and copyreg, or instruction by instruction where those
would not write them. Many would create the file ``canary`` if they were loaded.
"""

import collections
import copyreg
import functools
import importlib
import os
import pickle
import subprocess

import joblib
import numpy as np
import pytest
from hostile_pickles import CODECS, Call, array_call, refused

from cider.errors import StoreError, UnsafePickleError

HEAD = b"\x80\x04"
TEN_GIB = 10 * 2**30
F4 = np.dtype("f4")
SCALAR = np.float32(0).__reduce__()[0]


class Instance:
    """Pickles as an ordinary instance of a class that no feature file may have."""

    def __init__(self):
        self.name = "x"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.pkl"


@pytest.fixture
def canary(tmp_path):
    file = tmp_path / "canary"
    yield file
    assert not file.exists(), "something in the file was run"


def calls(canary):
    touch = f"touch {canary}"
    create = f"open({str(canary)!r}, 'w').close()"
    return {
        "posix.system": Call(os.system, touch),
        "builtins.eval": Call(eval, create),
        "builtins.exec": Call(exec, create),
        "builtins.open": Call(open, str(canary), "w"),
        "builtins.getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "builtins.__import__": Call(__import__, "os"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "subprocess.check_output": Call(subprocess.check_output, ["touch", str(canary)]),
        "importlib.import_module": Call(importlib.import_module, "os"),
        "functools.partial": Call(functools.partial, os.system, touch),
        "functools.reduce": Call(functools.reduce, getattr, ["a", "b"]),
        "_pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "numpy.load": Call(np.load, str(canary)),
        "numpy.savetxt": Call(np.savetxt, str(canary), [1]),
        "os.remove": Call(os.remove, str(canary)),
        "pathlib.PosixPath": canary,
    }


CALLS = sorted(calls("x"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", CALLS)
def test_pickle_that_calls_something_is_refused_by_its_name(path, canary, name, protocol):
    content = {"train": {"audio": np.zeros(3), "label": [calls(canary)[name]]}}
    path.write_bytes(pickle.dumps(content, protocol))

    sentence = refused(path)

    stem = name.split(".")[-1]
    assert f".{stem}" in sentence
    assert "nothing in the file was run" in sentence


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_joblib_file_that_calls_something_is_refused_by_its_name(path, canary, codec):
    content = {"audio": np.zeros(3), "label": Call(os.system, f"touch {canary}")}
    joblib.dump(content, path, compress=codec)

    assert "posix.system" in refused(path)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_joblib_object_array_that_calls_something_is_refused_by_its_name(path, canary, codec):
    array = np.array(["text", Call(os.system, f"touch {canary}")], dtype=object)
    joblib.dump({"raw_text": array}, path, compress=codec)

    assert "posix.system" in refused(path)


def test_object_array_that_calls_something_is_refused_by_its_name(path, canary):
    path.write_bytes(pickle.dumps(np.array([Call(eval, f"open({str(canary)!r}, 'w')")], object)))

    assert "builtins.eval" in refused(path)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Instance(), "Instance"),
        (np.ma.masked_array([1, 2], [True, False]), "numpy.ma"),
        (np.zeros(3).view(np.recarray), "numpy.rec"),
        (collections.defaultdict(list), "collections.defaultdict"),
        (collections.Counter("aab"), "collections.Counter"),
        (1 + 2j, "builtins.complex"),
        (range(3), "builtins.range"),
        (os.system, "posix.system"),
        ({"key": print}, "builtins.print"),
        (np.load, "numpy.load"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_value_of_another_class_is_refused_by_its_name(path, value, name):
    path.write_bytes(pickle.dumps(value))

    assert name in refused(path)


@pytest.mark.parametrize(
    ("value", "phrase"),
    [
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "type 'V8'"),
        (np.array(["2020-01-01"], "M8[D]"), "type 'M8'"),
        (np.zeros(2, np.dtype("f4", metadata={"x": 1})), "metadata"),
        (np.zeros(2, np.void(4).dtype), "type 'V4'"),
    ],
    ids=["records", "dates", "metadata", "void"],
)
def test_array_of_a_type_without_numbers_or_text_is_refused(path, value, phrase):
    path.write_bytes(pickle.dumps(value, 4))
    assert phrase in refused(path)
    joblib.dump(value, path)
    assert phrase in refused(path)


@pytest.mark.parametrize(
    ("value", "phrase"),
    [
        (array_call(kind=np.memmap, state=(1, (1,), F4, False, b"1234")), "numpy.memmap"),
        (array_call(kind=subprocess.Popen, state=(1, (1,), F4, False, b"1234")), "Popen"),
        (array_call(kind=7, state=(1, (1,), F4, False, b"1234")), "other than numpy.ndarray"),
        (array_call(start=(TEN_GIB,), state=(1, (1,), F4, False, b"1234")), "not empty at first"),
        (array_call(code=b"d", state=(1, (1,), F4, False, b"1234")), "not empty at first"),
        (array_call(state=(1, (TEN_GIB // 4,), F4, False, b"1234")), "holds 4 bytes"),
        (array_call(state=(1, (2**31, 2**31, 4), F4, False, b"1234")), "of the shape"),
        (array_call(state=(1, (2**200,), F4, False, b"1234")), "of the shape"),
        (array_call(state=(1, (-1,), F4, False, b"1234")), "of the shape"),
        (array_call(state=(1, (1.0,), F4, False, b"1234")), "of the shape"),
        (array_call(state=(1, (1,) * 65, F4, False, b"1234")), "shape is a tuple"),
        (array_call(state=(1, 1, F4, False, b"1234")), "shape is 1"),
        (array_call(state=(1, (1,), "f4", False, b"1234")), "str for its type"),
        (array_call(state=(1, (1,), F4, False, [1])), "list for its bytes"),
        (array_call(state=(1, (5,), np.dtype("O"), False, ["a"])), "other content"),
        (array_call(state=(1, (1,), np.dtype("O"), False, b"12345678")), "other content"),
        (array_call(state=(1, (1,), np.dtype("U1"), False, b"\xff" * 4)), "do not exist"),
        (array_call(state=(2, (1,), F4, False, b"1234")), "unknown form"),
        (array_call(state={"__class__": 1}), "unknown form"),
        (Call(SCALAR, np.dtype("O"), "text"), "objects from raw bytes"),
        (Call(SCALAR, np.dtype("f8"), b"1234"), "holds 4 bytes"),
        (Call(SCALAR, "f8", b"1234"), "objects from raw bytes"),
        (Call(np.ndarray, (TEN_GIB,)), "calls numpy.ndarray"),
        (Call(np.dtype, "V8"), "type 'V8'"),
        (Call(np.dtype, "U999999999999"), "type 'U9"),
        (Call(np.dtype, {"names": ["a"], "formats": ["O"]}), "type a dict"),
        (Call(np.dtype, "f4", False, True, state=(3, "<", (1,), None, None, 4, 4, 0)), "records"),
        (Call(np.dtype, "f4", False, True, state=(3, "<", None, None, None, 9, 4, 0)), "records"),
        (Call(np.dtype, "f4", False, True, state=(3, "?", None, None, None, -1, -1, 0)), "order"),
        (Call(set, "abc"), "makes a set of a str"),
        (Call(set, [(1, (2, 3))]), "inside a dict key or set"),
        (Call(copyreg._reconstructor, np.ndarray, object, None), "copyreg._reconstructor"),
        (Call(copyreg._reconstructor, set, object, None), "copyreg._reconstructor"),
        (Call(collections.OrderedDict, "ab"), "other than pairs"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_allowed_name_with_hostile_arguments_is_refused(path, value, phrase, protocol):
    path.write_bytes(pickle.dumps(value, protocol))

    assert phrase in refused(path)


NAMED = b"\x8c\x05numpy\x8c\x07ndarray\x93"  # numpy.ndarray on the stack
EMPTY_ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"  # not built yet
)


@pytest.mark.parametrize(
    ("program", "phrase"),
    [
        (NAMED + b".", "holds numpy.ndarray as a value"),
        (NAMED + b"K\x05\x85\x81.", "makes an instance of numpy.ndarray"),
        (NAMED + b")}\x92.", "numpy.ndarray (NEWOBJ_EX)"),
        (b"(inumpy\nndarray\n.", "numpy.ndarray (INST)"),
        (b"(ios\nsystem\n.", "asks for os.system"),
        (b"(" + NAMED + b"o.", "numpy.ndarray (OBJ)"),
        (b"cos\nsystem\n.", "asks for os.system"),
        (b"}\x8c\x06system\x93.", "not text"),
        (b"\x8c\x04text)R.", "calls a str"),
        (NAMED + b"NR.", "calls numpy.ndarray"),
        (b"c_codecs\nencode\n\x8c\x01a\x8c\x05utf-7\x86R.", "encoding 'utf-7'"),
        (b"c_codecs\nencode\n]R.", "list for arguments"),
        (b"c_codecs\ndecode\n.", "_codecs.decode"),
        (b"}}\x8c\x09__class__NsbN.", "sets the state of a dict"),
        (b"]}b.", "sets the state of a list"),
        (b"]K\x01K\x02s.", "sets items of a list"),
        (b"}K\x01a.", "appends to a dict"),
        (b"](K\x01\x90.", "adds members to a list"),
        (EMPTY_ARRAY + b".", "holds numpy.ndarray as a value"),
        (EMPTY_ARRAY + b"\x94h\x00.", "before its content"),
        (EMPTY_ARRAY + b"Nb.", "unknown form"),
        (b"}(](K\x01tNu.", "inside a dict key or set"),
        (b"\x8f(\x8f\x90.", "inside a dict key or set"),
        (b"Pid\n.", "persistent id"),
        (b"NQ.", "persistent id"),
        (b"\x82\x01.", "extension registry"),
        (b"\x83\x01\x00.", "extension registry"),
        (b"\x84\x01\x00\x00\x00.", "extension registry"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"N\x98.", "READONLY_BUFFER"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x8b\xff\xff\xff\x7f.", "integer of 2147483647 bytes"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_hostile_instruction_is_refused(path, program, phrase):
    path.write_bytes(HEAD + program)

    assert phrase in refused(path)


def test_name_in_the_extension_registry_is_refused(path, canary):
    copyreg.add_extension("posix", "system", 240)
    try:
        path.write_bytes(pickle.dumps(Call(os.system, f"touch {canary}"), 2))
        assert "EXT1" in refused(path)
    finally:
        copyreg.remove_extension("posix", "system", 240)


def joblib_state(**changes):
    wrapper = joblib.numpy_pickle.NumpyArrayWrapper(np.ndarray, (2,), "C", F4)
    wrapper.__dict__.update(changes)
    return wrapper


@pytest.mark.parametrize(
    ("changes", "error", "phrase"),
    [
        ({"subclass": np.memmap}, UnsafePickleError, "numpy.memmap"),
        ({"subclass": None}, UnsafePickleError, "other than numpy.ndarray"),
        ({"shape": (TEN_GIB,)}, StoreError, "truncated"),
        ({"shape": (2**40, 2**40)}, UnsafePickleError, "of the shape"),
        ({"shape": [2]}, UnsafePickleError, "shape is a list"),
        ({"order": "K"}, UnsafePickleError, "order 'K'"),
        ({"dtype": "f4"}, UnsafePickleError, "str for its type"),
        ({"dtype": np.dtype("O")}, StoreError, "not a pickle"),
        ({"numpy_array_alignment_bytes": 16}, StoreError, "truncated"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, dict) else "",
)
def test_joblib_array_with_hostile_description_is_refused(path, changes, error, phrase):
    data = pickle.dumps(joblib_state(**changes), 2)
    path.write_bytes(data[:-1] + b"\xff" * 8 + b".")

    assert phrase in refused(path, error)


def test_joblib_array_inside_an_object_array_is_refused(path):
    inner = pickle.dumps(joblib_state(), 2)
    outer = pickle.dumps(joblib_state(dtype=np.dtype("O")), 2)
    path.write_bytes(outer[:-1] + inner)

    assert "inside an object array" in refused(path)


def test_joblib_object_array_that_is_something_else_is_refused(path):
    outer = pickle.dumps(joblib_state(dtype=np.dtype("O")), 2)
    path.write_bytes(outer[:-1] + pickle.dumps(["a list"]) + b".")

    assert "a list where an object array was announced" in refused(path)
