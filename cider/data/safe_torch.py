"""Reading ``torch.save`` files from anywhere without importing or running anything they name.

The authors of the published models saved whole modules, and ``torch.load`` can only bring those
back by importing the authors' classes and running what the file says. Here a module is a record of
its state, from which the same state dict is walked out that the module itself would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from cider.data.file_bytes import regular_file_size
from cider.data.pickle_values import InertObject
from cider.data.torch_file import load_torch_object
from cider.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_MODULES = 100_000
"""Modules walked; ones that hold each other twice would otherwise never end."""
MAX_MODULE_DEPTH = 100
MAX_NAME_CHARACTERS = 200

_Entry = TypeVar("_Entry")
_PARALLEL = ("DataParallel", "DistributedDataParallel")
_PARALLEL_PREFIX = "module."


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """What a torch file holds: a module as an inert record, or a dict of tensors."""

    path: Path
    root: InertObject | dict[str, torch.Tensor]

    @property
    def class_name(self) -> str | None:
        """Dotted name of the root module's class as the file gives it; None for a state dict."""
        return self.root.class_name if isinstance(self.root, InertObject) else None

    @property
    def attributes(self) -> dict[str, int | float | str | bool]:
        """The root module's plain attributes, such as hidden sizes; empty for a state dict."""
        state = _state(self.root)
        return {
            name: value
            for name, value in state.items()
            if type(name) is str and type(value) in (int, float, str, bool)
        }

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the parameters and persistent buffers by dotted name, in the module's order.

        Tied and overlapping tensors share their memory as they did in the module. No tensor
        requires a gradient; all are on the CPU.

        Raises:
            StoreError: if the records do not form a tree of modules.
        """
        if isinstance(self.root, dict):
            return dict(self.root)
        tensors: dict[str, torch.Tensor] = {}
        for prefix, module in _modules_in_order(self.root, self.path):
            tensors.update(_own_tensors(prefix, module, self.path))
        return tensors


def read_torch_archive(path: Path) -> TorchArchive:
    """Read a file that ``torch.save`` wrote: a whole module, or a state dict.

    A ``DataParallel`` wrapping is taken off: the archive is the module inside, and names of a state
    dict lose their common prefix ``module.``.

    Args:
        path: a zip archive (torch 1.6 and later) or the older stream of pickles.

    Raises:
        UnsafePickleError: if the file asks for anything but tensors, containers and instances of
            classes outside the standard library; nothing in it has been run.
        StoreError: if it is missing, damaged, or holds something else.
    """
    size = regular_file_size(path)
    if size == 0:
        raise StoreError(f"{path} is empty; copy or download it again")
    value = load_torch_object(path, size)
    if isinstance(value, dict):
        return TorchArchive(path, _plain_state_dict(value, path))
    if not isinstance(value, InertObject) or "_modules" not in _state(value):
        raise StoreError(
            f"{path} holds {_kind(value)}, neither a module nor a dict of tensors; give a file "
            "made by torch.save(model) or torch.save(model.state_dict())"
        )
    if value.class_name.rpartition(".")[2] in _PARALLEL:
        inner = dict(_entries(value, "_modules", InertObject, path)).get("module")
        if inner is None:
            raise _malformed(path, "a data-parallel wrapping without a module")
        value = inner
    return TorchArchive(path, value)


def _plain_state_dict(value: dict[Any, Any], path: Path) -> dict[str, torch.Tensor]:
    for name, tensor in value.items():
        if type(name) is not str or type(tensor) is not torch.Tensor:
            raise StoreError(
                f"{path} holds a dict with {_kind(tensor)} under {str(name)[:60]!r}, not a dict of "
                "tensors; save the state dict alone with torch.save(model.state_dict())"
            )
    if value and all(name.startswith(_PARALLEL_PREFIX) for name in value):
        return {name.removeprefix(_PARALLEL_PREFIX): tensor for name, tensor in value.items()}
    return dict(value)


def _modules_in_order(root: InertObject, path: Path) -> Iterator[tuple[str, InertObject]]:
    """Yield every module with the prefix of its names, a parent before its children."""
    pending: list[tuple[tuple[str, ...], InertObject]] = [((), root)]
    for _ in range(MAX_MODULES):
        if not pending:
            return
        names, module = pending.pop()
        yield "".join(f"{name}." for name in names), module
        children = _entries(module, "_modules", InertObject, path)
        if len(names) >= MAX_MODULE_DEPTH and children:
            raise _malformed(path, f"modules more than {MAX_MODULE_DEPTH} deep")
        pending.extend(((*names, name), child) for name, child in reversed(children))
    raise _malformed(path, f"more than {MAX_MODULES} modules")


def _own_tensors(
    prefix: str, module: InertObject, path: Path
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a module's parameters, then the buffers that belong into a state dict."""
    transient = _state(module).get("_non_persistent_buffers_set", frozenset())
    if not isinstance(transient, (set, frozenset)):
        raise _malformed(path, f"{_kind(transient)} where names of buffers should be")
    for name, tensor in _entries(module, "_parameters", torch.Tensor, path):
        yield prefix + name, tensor
    for name, tensor in _entries(module, "_buffers", torch.Tensor, path):
        if name not in transient:
            yield prefix + name, tensor


def _entries(
    module: InertObject, group: str, kind: type[_Entry], path: Path
) -> list[tuple[str, _Entry]]:
    """Return the named parameters, buffers or children of a module, without those that are None."""
    found = _state(module).get(group)
    if not isinstance(found, dict):
        raise _malformed(path, f"a {module.class_name} without {group}")
    for name, value in found.items():
        if type(name) is not str or len(name) > MAX_NAME_CHARACTERS:
            raise _malformed(path, f"{group} with other names than short text")
        if value is not None and type(value) is not kind:
            raise _malformed(path, f"{_kind(value)} among the {group} of a {module.class_name}")
    return [(name, value) for name, value in found.items() if value is not None]


def _state(value: object) -> dict[Any, Any]:
    state = value.state if isinstance(value, InertObject) else None
    return state if isinstance(state, dict) else {}


def _kind(value: object) -> str:
    return f"a {value.class_name if isinstance(value, InertObject) else type(value).__name__}"


def _malformed(path: Path, found: str) -> StoreError:
    return StoreError(
        f"{path} holds {found}, so it is not a saved module; give a file made by torch.save(model)"
    )
