"""An array whose bytes stay in the file they were found in; rows are read when they are asked for.

Shapes: N rows.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from cider.data.file_bytes import CHUNK_BYTES, open_bytes
from cider.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, eq=False)
class BytesOnDisk:
    """Bytes of a file that were passed over."""

    path: Path
    """The user's file, for messages."""
    offset: int
    size: int
    file: IO[bytes] | None = None
    """Where they are if not in the user's file: a temporary one (``cider/data/spool.py``)."""

    def fill(self, buffer: memoryview, start: int) -> None:
        """Read as many bytes as ``buffer`` has, from byte ``start`` of these on.

        Raises:
            StoreError: if the file has become shorter, or can no longer be read.
        """
        done, first = 0, self.offset + start
        try:
            if self.file is not None:
                while done < len(buffer) and (
                    count := self._read_kept(buffer[done:], first + done)
                ):
                    done += count
            else:
                with open_bytes(self.path) as file:
                    file.seek(first)
                    while done < len(buffer) and (count := file.readinto(buffer[done:])):
                        done += count
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}") from error
        if done < len(buffer):
            raise StoreError(f"{self.path} became shorter while it was read; copy it again")

    def _read_kept(self, buffer: memoryview, offset: int) -> int:
        assert self.file is not None
        return os.preadv(self.file.fileno(), [buffer[:CHUNK_BYTES]], offset)

    def chunks(self) -> Iterator[bytes]:
        """Yield them in order, a chunk at a time."""
        for start in range(0, self.size, CHUNK_BYTES):
            chunk = bytearray(min(CHUNK_BYTES, self.size - start))
            self.fill(memoryview(chunk), start)
            yield bytes(chunk)

    def read(self) -> bytes:
        """Return them."""
        data = bytearray(self.size)
        self.fill(memoryview(data), 0)
        return bytes(data)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayOnDisk:
    """Numbers in C order somewhere in a file, with the attributes of an array that describe it."""

    held: BytesOnDisk
    """As many bytes as all its numbers have."""
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
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self.held.fill(memoryview(array.reshape(-1).view(np.uint8).data), start * row_bytes)
        return array

    def reshape(self, *shape: int) -> ArrayOnDisk:
        """Return the same numbers, in the same order, as an array of another shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self.shape} cannot be taken as {shape}")
        return ArrayOnDisk(self.held, self.dtype, shape)


def whole(value: object) -> object:
    """Return an array that is on disk as one in memory, and anything else as it is."""
    return value[:] if isinstance(value, ArrayOnDisk) else value
