"""How much memory tensors take at most, on any device, whatever the process held before.

Counted are the storages of all tensors that torch's operators make, each once and until it is
freed: activations kept for the backward pass, gradients, the optimiser's state. Not counted is what
an operator holds inside while it runs, nor what an allocator keeps in reserve.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable


class TensorPeak(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base class
    """Context manager that counts the bytes of the tensors that are made inside it.

    Args:
        held: tensors there are already and that count from the beginning, e.g. parameters.
    """

    def __init__(self, held: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        """Bytes at this moment."""
        self.peak = 0
        """Most bytes at any moment."""
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in held:
            self._see(tensor)

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        return found

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size).atexit = False

    def _free(self, size: int) -> None:
        self.now -= size
