"""The authors' released weights: a whole pickled module becomes a run that computes the same."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from cider.condition import Condition
from cider.data.schema import StoreKey, Tokenizer
from cider.data.writer import StoreWriter
from cider.errors import StoreError, UnsafePickleError, UsageError
from cider.modality import PerModality
from cider.models.cider.published import from_published
from cider.spec import DataConfig, RunSpec, TextEncoderConfig
from cider.training.checkpoint import read_checkpoint
from cider.training.evaluation import Masks
from cider_platform.runs.assembly import Runtime
from cider_platform.runs.evaluation import RunEvaluator, conditions_of, evaluate_run
from cider_platform.runs.published_checkpoint import export_checkpoint, import_published


@pytest.fixture
def case(golden_dir):
    """The unaligned recording: weights under the published names, sizes, BERT configuration."""
    facts = json.loads((golden_dir / "case_0.json").read_text())
    return load_file(golden_dir / "case_0.safetensors"), facts


def module_tree(state, classes):
    """Return nested modules that hold ``state``; their classes vanish before they are read."""
    root = classes.Model()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, classes.Block())
            module = module._modules[part]
        module.register_parameter(leaf, torch.nn.Parameter(tensor.clone(), requires_grad=True))
    root._modules["multimodal_transformer"]._modules["layers"]._modules["0"]._modules[
        "self_attn"
    ].num_heads = 4
    return root


@pytest.fixture
def checkpoint(case, tmp_path):
    """Save a whole module as the authors do; its classes exist only while it is written."""
    classes = types.ModuleType("published_models")
    exec(
        "import torch\nclass Model(torch.nn.Module): ...\nclass Block(torch.nn.Module): ...",
        classes.__dict__,
    )
    sys.modules["published_models"] = classes
    try:
        state = {k[8:]: v for k, v in case[0].items() if k.startswith("weights/")}
        path = tmp_path / "MOSI_binary.pt"
        torch.save(module_tree(state, classes), path)
    finally:
        del sys.modules["published_models"]
    return path


@pytest.fixture
def runtime(case, tmp_path):
    """A store whose sizes are the recording's, and the pre-trained encoder as a local folder."""
    tensors, facts = case
    sizes = facts["case"]
    torch.manual_seed(0)
    BertModel(BertConfig(**facts["bert"])).save_pretrained(tmp_path / "bert")
    rng = np.random.default_rng(0)
    given = {k[3:]: v.numpy() for k, v in tensors.items() if k.startswith("in/")}
    lengths = {m: given[f"{m}_mask"].sum(1).astype(int) for m in ("text", "audio", "vision")}
    with StoreWriter(
        tmp_path / "store",
        StoreKey(dataset="mosi", alignment="unaligned", distribution="iid"),
        tokenizer=Tokenizer(name="bert-base-uncased", vocab_size=240),
        widths={"audio": sizes["d_a"], "vision": sizes["d_v"]},
        max_lengths={"text": sizes["T_l"], "audio": sizes["T_a"], "vision": sizes["T_v"]},
        source={"file": "none", "format": "test", "sha256": "", "bytes": 0},
        default_encoder=str(tmp_path / "bert"),
    ) as writer:
        for split in ("train", "valid", "test"):
            writer.add(
                split,
                [f"{split}{row}" for row in range(6)],
                ["text"] * 6,
                [
                    given["text_ids"][row, :length].astype(np.int32)
                    for row, length in enumerate(lengths["text"])
                ],
                [given["audio"][row, :length] for row, length in enumerate(lengths["audio"])],
                [given["vision"][row, :length] for row, length in enumerate(lengths["vision"])],
                rng.permutation(np.float32([-2, -1, 0, 0, 1, 2])),
                None,
                None,
            )
        writer.finish()
    return Runtime(tmp_path / "store", tmp_path / "results", threads=1)


def imported(checkpoint, runtime, **options):
    return import_published(
        checkpoint,
        runtime,
        data=DataConfig(dataset="mosi"),
        text_encoder=TextEncoderConfig(),
        **options,
    )


def test_imported_module_becomes_a_released_run_with_the_same_weights(checkpoint, runtime, case):
    folder = imported(checkpoint, runtime)
    spec = RunSpec.from_dict(json.loads(folder.spec.read_text()))
    assert (spec.model.layers, spec.model.heads, spec.model.width) == (2, 4, 16)
    assert spec.model.positions == "batch_index"
    assert not spec.training.clear_gradients
    tensors, _ = read_checkpoint(folder.best)
    published = {k[8:]: v for k, v in case[0].items() if k.startswith("weights/")}
    for name, tensor in from_published(published).items():
        assert torch.equal(tensors[name], tensor), name
    assert "test split by the authors" in json.loads(folder.frozen.read_text())["selection"]


def test_imported_run_gives_the_recorded_joint_representation(checkpoint, runtime, case):
    folder = imported(checkpoint, runtime)
    evaluator = RunEvaluator(folder, runtime)
    run, test = evaluator._load()
    batch = next(iter(test.batches(6)))
    run.model.eval()
    with torch.no_grad():
        output = run.model(batch.complete)
    torch.testing.assert_close(output.joint_BJ, case[0]["out/joint"], rtol=1e-5, atol=1e-5)


def test_imported_run_is_evaluated_like_any_other(checkpoint, runtime):
    rows = evaluate_run(imported(checkpoint, runtime), runtime, conditions_of("rmfm", [0.0, 0.5]))
    assert [row["tau_chosen_on"] for row in rows] == ["valid", "valid"]


def test_importing_the_same_file_twice_gives_the_same_run(checkpoint, runtime):
    assert imported(checkpoint, runtime).run_id == imported(checkpoint, runtime).run_id


def test_state_dict_needs_the_number_of_heads(case, runtime, tmp_path):
    state = {k[8:]: v for k, v in case[0].items() if k.startswith("weights/")}
    path = tmp_path / "state.pt"
    torch.save(state, path)
    with pytest.raises(UsageError, match="give it by --heads"):
        imported(path, runtime)
    assert imported(path, runtime, heads=4).frozen.exists()


def test_other_number_of_heads_than_the_file_says_is_refused(checkpoint, runtime):
    with pytest.raises(UsageError, match="says 4; leave it out"):
        imported(checkpoint, runtime, heads=2)


def test_checkpoint_of_another_model_is_refused(runtime, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"linear.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(StoreError, match="not one of the published CIDer model"):
        imported(path, runtime)
    assert not (runtime.results / "runs").exists()


def test_checkpoint_of_another_corpus_is_refused(case, runtime, tmp_path):
    state = {k[8:]: v for k, v in case[0].items() if k.startswith("weights/")}
    state["recon_audio.0.weight"] = torch.zeros(99, 12)
    path = tmp_path / "other.pt"
    torch.save(state, path)
    with pytest.raises(StoreError, match="audio length 99 against 30"):
        imported(path, runtime, heads=4)


def test_hostile_checkpoint_runs_nothing(runtime, tmp_path):
    class Hostile:
        def __reduce__(self):
            return subprocess.getoutput, (f"touch {tmp_path / 'canary'}",)

    path = tmp_path / "hostile.pt"
    torch.save({"weight": Hostile()}, path)
    with pytest.raises(UnsafePickleError, match=r"subprocess\.getoutput"):
        imported(path, runtime)
    assert not (tmp_path / "canary").exists()
    assert not (runtime.results / "runs").exists()


def test_exported_file_holds_weights_statistics_and_spec(checkpoint, runtime, tmp_path):
    folder = imported(checkpoint, runtime)
    export_checkpoint(folder, tmp_path / "out.safetensors")
    tensors, facts = read_checkpoint(tmp_path / "out.safetensors")
    assert facts["spec"] == json.loads(folder.spec.read_text())
    assert tensors["statistics/prior"].sum() == pytest.approx(1.0)
    best, _ = read_checkpoint(folder.best)
    assert all(torch.equal(tensors[f"model/{name}"], best[name]) for name in best)


def test_released_masks_of_a_condition_are_those_of_the_whole_split(checkpoint, runtime):
    """Batches of any size read rows of one draw, as the published loader does."""
    folder = imported(checkpoint, runtime)
    evaluator = RunEvaluator(folder, runtime)
    _, test = evaluator._load()
    masks = Masks(test, Condition("rmfm", 0.5), evaluator.spec.missing, 1111)
    whole = masks.of(next(iter(test.batches(6))))
    parts = [masks.of(batch) for batch in test.batches(2)]
    rejoined = PerModality(*(torch.cat([list(p)[number] for p in parts]) for number in range(3)))
    for first, second in zip(whole, rejoined, strict=True):
        assert torch.equal(first, second)
