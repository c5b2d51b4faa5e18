"""Checkpoints: one safetensors file with JSON in its header, replaced atomically.

``last.safetensors`` holds weights, optimiser state and generator states, so that a run goes on to
the same numbers; ``best.safetensors`` holds the weights of the selected epoch. No pickle is read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cider.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

FORMAT = "cider-checkpoint/1"


def write_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON facts to one file, so that a crash leaves the old file or the new one.

    Args:
        path: the file; its folder is made.
        tensors: any device; they are written as contiguous CPU copies.
        facts: JSON values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    # A clone, because safetensors refuses tensors that share memory (tied weights).
    plain = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    # One key: safetensors writes several in random order, and equal checkpoints should hash equal.
    header = json.dumps({"format": FORMAT, "facts": facts}, allow_nan=False)
    try:
        save_file(plain, temporary, {"checkpoint": header})
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and facts of a checkpoint.

    Raises:
        StoreError: if the file is absent, damaged or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"the checkpoint {path} cannot be read ({error})") from error
    if header.get("format") != FORMAT:
        raise StoreError(
            f"{path} is not a checkpoint of this version: its format is {header.get('format')!r}, "
            f"{FORMAT!r} is needed"
        )
    return tensors, header["facts"]


def training_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> dict[str, Tensor]:
    """Return everything in memory that later numbers depend on, as named tensors."""
    state = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    names = _parameter_names(model, optimizer)
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            state[f"optimizer/{names[index]}/{key}"] = torch.as_tensor(value)
    state["generator/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        state["generator/cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_training_state(
    tensors: dict[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    """Put back what ``training_state`` returned.

    Raises:
        StoreError: if the tensors belong to another model.
    """
    load_weights(model, _below(tensors, "model/"))
    names = _parameter_names(model, optimizer)
    saved: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer/").items():
        parameter, key = name.rsplit("/", 1)
        saved.setdefault(parameter, {})[key] = tensor
    full = optimizer.state_dict()
    full["state"] = {index: saved[name] for index, name in enumerate(names) if name in saved}
    optimizer.load_state_dict(full)
    torch.set_rng_state(tensors["generator/cpu"])
    if device.type == "cuda" and "generator/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator/cuda"], device)


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        StoreError: naming the first parameter that is missing, unknown or of another shape.
    """
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise StoreError(
            f"the weights do not fit the model: {' '.join(lines[1:2] or lines)}"
        ) from error


def model_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's part of a training state."""
    return _below(tensors, "model/")


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the model's name of every optimised parameter, in the optimiser's order."""
    by_identity = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        by_identity[id(parameter)]
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
