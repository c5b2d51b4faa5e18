"""An array whose bytes stay in the file they were found in; rows are read when they are asked for.

Shapes: N rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.data.file_bytes import open_bytes
from cider.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, eq=False)
class BytesOnDisk:
    """Bytes of a file that were passed over."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return them."""
        return ArrayOnDisk(self.path, self.offset, np.dtype(np.uint8), (self.size,))[:].tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class ArrayOnDisk:
    """Numbers in C order somewhere in a file, with the attributes of an array that describe it."""

    path: Path
    offset: int
    """Where in the file its first byte is."""
    dtype: np.dtype
    shape: tuple[int, ...]
    """At least one dimension."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return neighbouring rows as an array of its own.

        Raises:
            StoreError: if the file has become shorter, or can no longer be read.
        """
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"rows on disk are read one after the other, got a step of {step}")
        array = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        buffer = memoryview(array.reshape(-1).view(np.uint8).data)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        done = 0
        with open_bytes(self.path) as file:
            try:
                file.seek(self.offset + start * row_bytes)
                while done < len(buffer) and (count := file.readinto(buffer[done:])):
                    done += count
            except OSError as error:
                raise StoreError(f"{self.path} cannot be read: {error.strerror}") from error
        if done < len(buffer):
            raise StoreError(f"{self.path} became shorter while it was read; copy it again")
        return array


def whole(value: object) -> object:
    """Return an array that is on disk as one in memory, and anything else as it is."""
    return value[:] if isinstance(value, ArrayOnDisk) else value
