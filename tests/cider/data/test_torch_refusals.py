"""Torch files that call something, lie about their tensors or hold something else are refused."""

import argparse
import collections
import io
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from hostile_pickles import Call, nested_twice, refused
from torch import nn

from cider.data.safe_torch import read_torch_archive
from cider.errors import StoreError

FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@pytest.fixture
def canary(tmp_path):
    file = tmp_path / "canary"
    yield file
    assert not file.exists(), "something in the file was run"


def calls(canary):
    return {
        "posix.system": Call(os.system, f"touch {canary}"),
        "builtins.eval": Call(eval, f"open({str(canary)!r}, 'w')"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "builtins.getattr": Call(getattr, nn.Linear(1, 1), "forward"),
        "torch.hub.load": Call(torch.hub.load, "somebody/something", "x"),
        "torch.serialization.load": Call(torch.load, str(canary)),
        "torch._C._nn.gelu": Call(torch.nn.functional.gelu, torch.ones(1)),
        "numpy.load": Call(np.load, str(canary)),
        "pathlib.PosixPath": canary,
    }


@FORMATS
@pytest.mark.parametrize("name", sorted(calls("x")))
def test_module_that_calls_something_is_refused_by_its_name(path, canary, name, is_zip):
    model = nn.Linear(2, 2)
    model.hidden = {"deep": [calls(canary)[name]]}
    torch.save(model, path, _use_new_zipfile_serialization=is_zip)

    assert name in refused(path, read=read_torch_archive)


def test_function_that_is_only_named_is_a_record_and_not_called(path):
    model = nn.Linear(2, 2)
    model.activation = torch.nn.functional.gelu
    torch.save(model, path)

    assert "activation" not in read_torch_archive(path).attributes


class StorageStub:
    """Stands where a storage is; pickled as the persistent id ``identity``."""

    def __init__(self, *identity):
        self.identity = identity or ("storage", torch.FloatStorage, "0", "cpu", 4)


class Writer(pickle.Pickler):
    def persistent_id(self, value):
        return value.identity if isinstance(value, StorageStub) else None


def write_archive(path, value, members=(("data/0", bytes(16)),), **options):
    """Write a torch archive by hand, around a pickle of ``value`` and other members."""
    data = io.BytesIO()
    Writer(data, 2).dump(value)
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", data.getvalue())
        for name, content in members:
            archive.writestr(f"archive/{name}", content)


def tensor_call(storage=None, offset=0, size=(4,), stride=(1,), rest=(False, {})):
    storage = StorageStub() if storage is None else storage
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, *rest)


def test_archive_written_by_hand_is_read(path):
    write_archive(path, {"w": tensor_call(size=(2, 2), stride=(2, 1))})

    found = read_torch_archive(path).state_dict()

    assert list(found) == ["w"]
    assert torch.equal(found["w"], torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("value", "phrase"),
    [
        (tensor_call(size=(5,)), "reaches element 4"),
        (tensor_call(offset=1), "reaches element 4"),
        (tensor_call(stride=(2,)), "reaches element 6"),
        (tensor_call(size=(10**9,), stride=(0,)), "of size (1000000000,)"),
        (tensor_call(size=(2**62,)), "for a size, stride or offset"),
        (tensor_call(size=(-1,)), "with -1 for a size"),
        (tensor_call(stride=(-1,)), "with -1 for a size"),
        (tensor_call(offset=True), "a bool for a size"),
        (tensor_call(size=[4]), "not a tuple"),
        (tensor_call(size=(4,), stride=()), "1 sizes and 0 strides"),
        (tensor_call(size=(1,) * 65, stride=(1,) * 65), "65 sizes"),
        (tensor_call(size=(nested_twice(list, 60),)), "with a list for a size"),
        (tensor_call(storage="0"), "not a storage"),
        (tensor_call(rest=(False, {}, {"conj": True})), "metadata"),
        (
            tensor_call(StorageStub("storage", torch.FloatStorage, "7", "cpu", 1)),
            "'archive/data/7'",
        ),
        (tensor_call(StorageStub("storage", torch.FloatStorage, "0", "cpu", 5)), "claims 5"),
        (tensor_call(StorageStub("storage", torch.FloatStorage, "0", "cpu", -1)), "by something"),
        (tensor_call(StorageStub("storage", torch.FloatStorage, 0, "cpu", 1)), "by something"),
        (tensor_call(StorageStub("storage", nn.Linear, "0", "cpu", 1)), "by something"),
        (tensor_call(StorageStub("other", 1)), "not a storage"),
        (Call(torch._utils._rebuild_parameter, "text", True, {}), "makes a parameter"),
        (
            Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, ("true",), {}),
            "posix.system",
        ),
        (
            Call(torch._tensor._rebuild_from_type_v2, nn.Linear, torch.Tensor, (1, 1), {}),
            "with a function that does not",
        ),
        (Call(collections.OrderedDict, [[[], 1]]), "inside a dict key"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_tensor_with_hostile_description_is_refused(path, value, phrase):
    write_archive(path, {"w": value})

    assert phrase in refused(path, read=read_torch_archive)


class Record:
    """An instance whose state is exactly what the test says, by default that of an empty module."""

    def __init__(self, **state):
        self.__dict__.update({"_parameters": {}, "_buffers": {}, "_modules": {}, **state})


def ring():
    record = Record()
    record._modules = {"self": record}
    return record


def doubled():
    record = Record()
    for _ in range(40):
        record = Record(_modules={"a": record, "b": record})
    return record


@pytest.mark.parametrize(
    ("make", "phrase"),
    [
        (lambda: 7, "a int, neither a module"),
        (lambda: {"epoch": 3}, "a int under 'epoch'"),
        (lambda: {3: torch.ones(1)}, "under '3'"),
        (lambda: {"state_dict": {"w": torch.ones(1)}}, "under 'state_dict'"),
        (lambda: argparse.Namespace(w=1), "argparse.Namespace, neither a module"),
        (ring, "more than 100 deep"),
        (doubled, "more than 100000 modules"),
        (lambda: Record(_parameters=[]), "without _parameters"),
        (lambda: Record(_parameters={"w": 3}), "a int among the _parameters"),
        (lambda: Record(_parameters={3: torch.ones(1)}), "other names than short text"),
        (lambda: Record(_parameters={"w" * 300: None}), "other names than short text"),
        (lambda: Record(_modules={"m": torch.ones(1)}), "a Tensor among the _modules"),
        (lambda: Record(_non_persistent_buffers_set=3), "a int where names"),
        (lambda: nn.DataParallel.__new__(nn.DataParallel), "neither a module"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_file_without_a_sound_module_fails_with_one_sentence(path, make, phrase):
    torch.save(make(), path)

    sentence = refused(path, StoreError, read=lambda file: read_torch_archive(file).state_dict())
    assert phrase in sentence


def test_archive_with_compressed_or_overlarge_members_is_refused(path):
    write_archive(path, {"w": tensor_call()}, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path, StoreError, read=read_torch_archive)


@pytest.mark.parametrize(
    ("members", "phrase"),
    [
        ([("byteorder", b"big")], "big-endian"),
        ([("code/model.py", b"")], "not one that torch.save writes"),
        ([("../other/data.pkl", b""), ("data/0", bytes(16))], "zip"),
    ],
    ids=["big_endian", "torchscript", "two_programs"],
)
def test_archive_of_another_kind_fails_with_one_sentence(path, members, phrase):
    write_archive(path, {"w": torch.Size([1])}, members=members)

    sentence = refused(path, StoreError, read=read_torch_archive)
    assert phrase in sentence or "dict of tensors" in sentence


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and nothing else", "damaged zip archive"),
        (b"not a torch file", "not a pickle"),
        (pickle.dumps({"w": 1}), "not a torch file"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(7, 2) + b"N.", "another protocol"),
        (pickle.dumps(Call(os.system, "true")), "posix.system"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_file_of_another_kind_fails_with_one_sentence(path, content, phrase):
    path.write_bytes(content)

    assert phrase in refused(path, StoreError, read=read_torch_archive)


def test_numpy_archive_fails_with_one_sentence(path):
    with path.open("wb") as file:
        np.savez(file, audio=np.zeros(3))

    assert "not one that torch.save writes" in refused(path, StoreError, read=read_torch_archive)
