"""The authors' released weights as a run of ours, and our weights as one file for elsewhere.

An imported checkpoint becomes a frozen run with the behaviour ``released``: it can be evaluated
like any other, with tau chosen on validation, and says that its weights were chosen on test data.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cider.behaviour import with_behaviour
from cider.data.hashing import file_sha256
from cider.data.pickle_values import InertObject
from cider.data.safe_torch import read_torch_archive
from cider.data.statistics import load_statistics
from cider.errors import StoreError, UsageError
from cider.models.cider.config import Config
from cider.models.cider.published import PublishedShape, from_published, published_shape
from cider.spec import RunSpec, TrainingConfig
from cider.training.checkpoint import load_weights, write_checkpoint
from cider_platform.layout import RunFolder, now, read_json, write_json_atomic
from cider_platform.runs.assembly import Runtime, assemble, open_store, resolve
from cider_platform.runs.trial import best_weights, freeze_statistics

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.safe_torch import TorchArchive
    from cider.spec import DataConfig, TextEncoderConfig

_ATTENTION = ("multimodal_transformer", "layers", "0", "self_attn")
CHOSEN_BY_AUTHORS = "weights chosen on the test split by the authors"


def heads_of(archive: TorchArchive) -> int | None:
    """Return the number of attention heads a pickled module was built with, if the file says."""
    state = _module_state(archive.root)
    for name in _ATTENTION:
        children = state.get("_modules")
        state = _module_state(children.get(name) if isinstance(children, dict) else None)
    heads = state.get("num_heads")
    return heads if type(heads) is int else None


def _module_state(value: object) -> dict[Any, Any]:
    state = value.state if isinstance(value, InertObject) else None
    return state if isinstance(state, dict) else {}


def import_published(
    path: Path,
    runtime: Runtime,
    *,
    data: DataConfig,
    text_encoder: TextEncoderConfig,
    heads: int | None = None,
) -> RunFolder:
    """Make a frozen run of a checkpoint that the authors' code wrote.

    Args:
        path: a ``.pt`` file: a whole pickled module, or its state dict. Nothing in it is executed.
        runtime: names the feature store and the results root.
        data: the corpus it was trained on, which must be in the store.
        text_encoder: the pre-trained encoder it started from: class means come from that one.
        heads: attention heads; needed if the file, a state dict, does not say.

    Raises:
        StoreError: if the file is unsafe, damaged or does not fit the corpus.
        UsageError: if the number of heads is unknown, or is another than the file says.
    """
    archive = read_torch_archive(path)
    state = archive.state_dict()
    shape = published_shape(state)
    spec = resolve(_spec(shape, _heads(path, archive, heads), data, text_encoder), runtime)
    store = open_store(spec, runtime)
    _check_fit(path, shape, store.manifest.max_lengths, store.manifest.widths)
    assembled = assemble(spec, store, runtime)
    load_weights(assembled.model, from_published(state))

    source_sha256 = file_sha256(path)
    identity = f"published checkpoint {source_sha256} {spec.run_id}"
    folder = RunFolder.of(runtime.results, hashlib.sha256(identity.encode()).hexdigest()[:16])
    folder.root.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder.spec, spec.to_dict())
    write_checkpoint(folder.best, dict(assembled.model.state_dict()), {"epoch": None})
    facts: dict[str, Any] = {
        "run_id": folder.run_id,
        "selection": CHOSEN_BY_AUTHORS,
        "metric": spec.selection_metric,
        "epoch": "imported",
        "score": None,
        "tau": None,
        "weights_sha256": file_sha256(folder.best),
        "imported_from": {"file": path.name, "sha256": source_sha256, "class": archive.class_name},
        "frozen": now(),
    }
    freeze_statistics(folder, assembled)
    write_json_atomic(folder.frozen, facts)
    parameters = assembled.model.num_parameters()
    synthetic = store.manifest.synthetic
    write_json_atomic(
        folder.result, {"parameters": parameters, "synthetic": synthetic, "epochs": None, **facts}
    )
    folder.write_status("COMPLETE", ended=now("milliseconds"))
    return folder


def _heads(path: Path, archive: TorchArchive, heads: int | None) -> int:
    found = heads_of(archive)
    if found is None and heads is None:
        raise UsageError(
            f"{path.name} does not say how many attention heads its model has; give it by --heads"
        )
    if found is not None and heads is not None and found != heads:
        raise UsageError(f"--heads {heads} was given, but {path.name} says {found}; leave it out")
    return heads if found is None else found  # type: ignore[return-value]


def _spec(
    shape: PublishedShape, heads: int, data: DataConfig, text_encoder: TextEncoderConfig
) -> RunSpec:
    spec = RunSpec(
        data=replace(data, task="three_class" if shape.num_classes == 3 else "seven_class"),
        model=Config(layers=shape.layers, width=shape.width, heads=heads),
        text_encoder=text_encoder,
        training=TrainingConfig(),
    )
    spec = replace(spec, maci=replace(spec.maci, layer_norm="on" if shape.cross_dataset else "off"))
    return with_behaviour(spec, "released")


def _check_fit(
    path: Path, shape: PublishedShape, lengths: dict[str, int], widths: dict[str, int]
) -> None:
    """Raise ``StoreError`` unless the corpus has the sizes the checkpoint was made for."""
    wanted = {
        "text length": (shape.text_length, lengths["text"]),
        "audio length": (shape.audio_length, lengths["audio"]),
        "vision length": (shape.vision_length, lengths["vision"]),
        "audio width": (shape.audio_width, widths["audio"]),
        "vision width": (shape.vision_width, widths["vision"]),
    }
    wrong = [
        f"{name} {model} against {corpus}"
        for name, (model, corpus) in wanted.items()
        if model != corpus
    ]
    if wrong:
        raise StoreError(
            f"{path.name} was made for another corpus than the stored one ({'; '.join(wrong)}); "
            "name the corpus it was trained on by --dataset, --alignment and --distribution"
        )


def export_checkpoint(folder: RunFolder, path: Path) -> None:
    """Write a finished run to one safetensors file: weights, training statistics, spec, choices.

    The header's ``checkpoint`` entry is JSON with the spec and the frozen record.

    Args:
        folder: a frozen run.
        path: the file to write; an existing one is replaced.

    Raises:
        StoreError: if the run is not frozen.
    """
    if not folder.frozen.exists():
        raise StoreError(f"run {folder.run_id} is not finished; only a frozen run can be exported")
    tensors = {f"model/{name}": tensor for name, tensor in best_weights(folder).items()}
    tensors |= _statistics_tensors(folder)
    facts = {"spec": read_json(folder.spec), "frozen": read_json(folder.frozen)}
    write_checkpoint(path, tensors, facts)


def _statistics_tensors(folder: RunFolder) -> dict[str, torch.Tensor]:
    statistics = load_statistics(folder.statistics)
    named = {
        "prior": statistics.prior_C,
        "bias_words": statistics.bias_words.ids,
        "text_means": statistics.class_features.text,
        "audio_means": statistics.class_features.audio,
        "vision_means": statistics.class_features.vision,
    }
    return {f"statistics/{name}": torch.from_numpy(array) for name, array in named.items()}
