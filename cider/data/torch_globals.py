"""What the names in a torch file stand for: tensors over its storages, records of all else.

A file written by ``torch.save(model)`` names the classes of the whole model, among them ones that
exist on the author's machine only. None is imported: an instance becomes an ``InertObject`` with a
class name and a state. Only the tensor builders listed here can be called.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cider.data.pickle_globals import PLAIN_GLOBALS, canonical_name, printable
from cider.data.pickle_values import (
    Global,
    InertObject,
    OrderedItems,
    Refused,
    check_arguments,
    check_key,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_STORAGE_TYPES = {
    "BFloat16": torch.bfloat16,
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Short": torch.int16,
}
_TENSOR_TYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in (
        *("bool", "bfloat16", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}
# No instance of a class of these belongs into a model, and what could do harm if called is here.
# Nothing can be called in any case; refusing the names tells the user what the file tried.
_REFUSED_PACKAGES = sys.stdlib_module_names | {"cPickle", "joblib", "numpy"}
_MAX_DIMENSIONS = 64
# Records of settings that models keep; as inert as any other class.
_STANDARD_RECORDS = {"argparse.Namespace"}


@dataclass(frozen=True, slots=True, eq=False)
class StorageType:
    """The type of a storage, such as ``torch.FloatStorage``."""

    dtype: torch.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Bytes that tensors share, and the type the file gives them."""

    dtype: torch.dtype
    bytes_N: torch.Tensor
    """uint8 (N,)."""


class TorchGlobals:
    """Resolves the names of one torch file.

    Args:
        file_bytes: size of the file; no tensor in it, expanded or not, may have more elements.
    """

    def __init__(self, file_bytes: int) -> None:
        self._file_bytes = file_bytes
        rebuilders = {
            "torch._utils._rebuild_tensor": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v3": self._rebuild_typed_tensor,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
        }
        self._rebuilders = {name: Global(name, call=call) for name, call in rebuilders.items()}
        self._values: dict[str, object] = {
            **{name: value for name, value in PLAIN_GLOBALS.items() if "joblib" not in name},
            **_TENSOR_TYPES,
            **_storage_types(),
            **self._rebuilders,
            **{name: Global(name, call=call) for name, call in self._simple_builders().items()},
        }

    def resolve(self, module: str, name: str) -> object:
        """Return a builder, a type, or a class that can only be recorded.

        Raises:
            Refused: if the name belongs to the standard library or to another package whose
                objects have no place in a model.
        """
        full = canonical_name(module, name)
        if full in self._values:
            return self._values[full]
        if full not in _STANDARD_RECORDS and full.split(".")[0] in _REFUSED_PACKAGES:
            raise Refused(f"asks for {printable(module, name)}")
        return Global(
            printable(module, name),
            create=lambda arguments: InertObject(printable(module, name), arguments),
        )

    def _simple_builders(self) -> dict[str, Callable[[tuple[Any, ...]], object]]:
        return {
            "collections.OrderedDict": _ordered_items,
            "torch._tensor._rebuild_from_type_v2": self._rebuild_from_type,
            "torch.Size": lambda arguments: check_arguments(*arguments),
            "torch.device": _device,
            "torch.serialization._get_layout": lambda arguments: shown(*arguments),
        }

    def _rebuild_tensor(self, arguments: tuple[Any, ...]) -> torch.Tensor:
        storage, offset, size, stride = arguments[:4]
        _check_plain(arguments[6:])
        if type(storage) is not Storage:
            raise Refused("builds a tensor from something that is not a storage")
        return self._strided(storage, storage.dtype, offset, size, stride)

    def _rebuild_typed_tensor(self, arguments: tuple[Any, ...]) -> torch.Tensor:
        storage, offset, size, stride, _requires_grad, _hooks, dtype = arguments[:7]
        _check_plain(arguments[7:])
        if type(storage) is not Storage or not isinstance(dtype, torch.dtype):
            raise Refused("builds a tensor from something that is not a storage and a type")
        return self._strided(storage, dtype, offset, size, stride)

    def _rebuild_from_type(self, arguments: tuple[Any, ...]) -> object:
        """Rebuild a tensor that carries Python attributes, and leave those out."""
        function, _kind, inner, _state = arguments
        if type(function) is not Global or function not in self._rebuilders.values():
            raise Refused("rebuilds a tensor with a function that does not")
        assert function.call is not None
        return function.call(check_arguments(inner))

    def _strided(
        self,
        storage: Storage,
        dtype: torch.dtype,
        offset: Any,  # noqa: ANN401 - out of the file, checked here
        size: Any,  # noqa: ANN401
        stride: Any,  # noqa: ANN401
    ) -> torch.Tensor:
        """Return a view of a storage whose every element lies inside it."""
        if type(size) is not tuple or type(stride) is not tuple:
            raise Refused("builds a tensor whose size or stride is not a tuple")
        if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
            raise Refused(f"builds a tensor of {len(size)} sizes and {len(stride)} strides")
        for number in (offset, *size, *stride):
            if type(number) is not int or not 0 <= number < 2**48:
                raise Refused(f"builds a tensor with {shown(number)} for a size, stride or offset")
        available = len(storage.bytes_N) // dtype.itemsize
        count, last = 1, offset
        for length, step in zip(size, stride, strict=True):
            count *= length
            last += (length - 1) * step
        if count and (last >= available or count > self._file_bytes):
            raise Refused(
                f"builds a tensor of size {size} that reaches element {last} of a storage of "
                f"{available}"
            )
        whole = storage.bytes_N[: available * dtype.itemsize].view(dtype)
        return whole.as_strided(size, stride, offset if count else 0)


def _storage_types() -> dict[str, StorageType]:
    found = {"torch.storage.UntypedStorage": StorageType(torch.uint8)}
    found["torch.UntypedStorage"] = found["torch.storage.UntypedStorage"]
    for name, dtype in _STORAGE_TYPES.items():
        for package in ("torch", "torch.cuda"):
            found[f"{package}.{name}Storage"] = StorageType(dtype)
    return found


def _rebuild_parameter(arguments: tuple[Any, ...]) -> torch.Tensor:
    tensor = arguments[0]
    if type(tensor) is not torch.Tensor:
        raise Refused("makes a parameter of something that is not a tensor")
    return tensor


def _check_plain(metadata: tuple[Any, ...]) -> None:
    # Conjugate and negative views, which exist for complex tensors only.
    if any(entry is not None and entry != {} for entry in metadata):
        raise Refused("builds a tensor with metadata")


def _ordered_items(arguments: tuple[Any, ...]) -> OrderedItems:
    (pairs,) = arguments or ([],)
    if type(pairs) is not list or any(len(pair) != 2 for pair in pairs):
        raise Refused("makes an ordered dict of something other than pairs")
    for key, _ in pairs:
        check_key(key)
    return OrderedItems(pairs)


def _device(arguments: tuple[Any, ...]) -> str:
    """Return a device as text: tensors always come on the CPU."""
    return ":".join(str(part) for part in arguments if type(part) in (str, int))
