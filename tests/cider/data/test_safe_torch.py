"""Torch files come back as the module's own state dict, without its classes, or are refused."""

import collections
import contextlib
import importlib.util
import io
import sys
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hostile_pickles import refused
from hypothesis import given, settings
from torch import nn

from cider.data.safe_torch import read_torch_archive
from cider.errors import CiderError, StoreError

# What an author's repository would hold; nobody who reads the file has it.
AUTHORED = """
import argparse
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 3, num_layers=2, bidirectional=True)
        self.norm = nn.LayerNorm(6)
        self.activation = nn.functional.gelu
        self.register_buffer("steps", torch.arange(5))
        self.register_buffer("cache", torch.ones(2), persistent=False)
        self.register_buffer("nothing", None)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_dim = 32
        self.attn_dropout = 0.1
        self.language = "en"
        self.aligned = True
        self.orig_d_l, self.lengths = None, [1, 2]
        self.options = argparse.Namespace(lr=0.1)
        self.device, self.dtype = torch.device("cuda", 0), torch.float32
        self.encoder = Encoder()
        self.classifiers = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)])
        self.classifiers[1].weight = self.classifiers[0].weight
        self.again = self.classifiers[0]
        self.shift = nn.BatchNorm1d(3)
        self.halved = nn.Parameter(torch.randn(3).half())
        self.brain = nn.Parameter(torch.randn(4, 6).bfloat16()[:, ::2])
        self.turned = nn.Parameter(torch.randn(2, 3).t())
        self.scalar = nn.Parameter(torch.tensor(2.5))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.marked = nn.Parameter(torch.ones(2))
        self.marked.is_initialized = True
        self.register_buffer("expanded", torch.arange(3.0).expand(2, 3))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("wide", torch.tensor([2**40]))
        self.register_buffer("small", torch.tensor([7], dtype=torch.uint16))
"""
FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@pytest.fixture
def authored(tmp_path):
    """The author's module, gone from this process again once the model has been saved."""
    name = "authored_model"
    file = tmp_path / f"{name}.py"
    file.write_text(AUTHORED)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    torch.manual_seed(0)

    def save(value, path, *, is_zip=True):
        torch.save(value, path, _use_new_zipfile_serialization=is_zip)
        sys.modules.pop(name, None)
        file.unlink(missing_ok=True)

    return module, save


def assert_same_tensors(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].stride() == tensor.stride()
        assert not found[name].requires_grad
        assert torch.equal(found[name], tensor), name


@FORMATS
def test_whole_module_gives_its_state_dict_without_its_classes(path, authored, is_zip):
    module, save = authored
    model = module.Model()
    expected = model.state_dict()
    save(model, path, is_zip=is_zip)

    archive = read_torch_archive(path)

    assert "authored_model" not in sys.modules
    assert archive.class_name == "authored_model.Model"
    assert_same_tensors(archive.state_dict(), expected)
    assert archive.attributes == {
        "training": True,
        "embed_dim": 32,
        "attn_dropout": 0.1,
        "language": "en",
        "aligned": True,
        "device": "cuda:0",
    }


@FORMATS
def test_tied_and_overlapping_tensors_still_share_memory(path, authored, is_zip):
    module, save = authored
    save(module.Model(), path, is_zip=is_zip)

    tensors = read_torch_archive(path).state_dict()
    tensors["classifiers.0.weight"].fill_(3.0)

    assert (tensors["classifiers.1.weight"] == 3.0).all()
    assert (tensors["again.weight"] == 3.0).all()


@FORMATS
@pytest.mark.parametrize("whole", [True, False], ids=["module", "state_dict"])
def test_data_parallel_wrapping_is_taken_off(path, authored, whole, is_zip):
    module, save = authored
    model = module.Model()
    wrapped = nn.DataParallel(model)
    save(wrapped if whole else wrapped.state_dict(), path, is_zip=is_zip)

    archive = read_torch_archive(path)

    assert archive.class_name == ("authored_model.Model" if whole else None)
    assert_same_tensors(archive.state_dict(), model.state_dict())


@FORMATS
def test_state_dict_comes_back_as_it_is(path, is_zip):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=is_zip)

    archive = read_torch_archive(path)

    assert archive.class_name is None
    assert archive.attributes == {}
    assert_same_tensors(archive.state_dict(), model.state_dict())


def test_module_with_numpy_values_and_a_tokenizer_is_read(path, authored):
    transformers = pytest.importorskip("transformers")
    module, save = authored
    model = module.Model()
    model.width = np.int64(5)
    model.vocabulary = collections.OrderedDict(a=1)
    model.tokenizer = transformers.BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "a": 2})
    model.text = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    )
    expected = model.state_dict()
    save(model, path)

    assert_same_tensors(read_torch_archive(path).state_dict(), expected)


@FORMATS
def test_torch_file_cut_anywhere_fails_with_one_sentence(path, is_zip):
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    for size in range(0, len(data), 61):
        path.write_bytes(data[:size])
        refused(path, StoreError, read=read_torch_archive)


def saved(value, is_zip):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


SEEDS = [
    saved(value, is_zip)
    for value in (nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2)), nn.Linear(1, 1).state_dict())
    for is_zip in (True, False)
]


def with_changed_program(data, change):
    """Return the archive with another program but sound checksums, so that it gets to be run."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return file.getvalue()


@settings(max_examples=200, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1, max_size=5),
    outside=st.booleans(),
)
def test_torch_file_changed_anywhere_is_read_or_refused(tmp_path_factory, seed, changes, outside):
    def change(content):
        data = bytearray(content)
        for position, replacement in changes:
            start = int(position * len(data))
            data[start : start + max(len(replacement), 1)] = replacement
        return bytes(data)

    file = tmp_path_factory.mktemp("changed") / "model.pt"
    is_zip = seed.startswith(b"PK")
    file.write_bytes(with_changed_program(seed, change) if is_zip and not outside else change(seed))

    with contextlib.suppress(CiderError):
        read_torch_archive(file).state_dict()
