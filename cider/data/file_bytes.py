"""Opening a file that a user named, and reading it in pieces that a progress bar can follow."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from cider.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

ByteProgress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes of the whole file."""

CHUNK_BYTES = 8 * 2**20
"""Most bytes read between two reports of progress, and most held twice while decompressing."""


class ChunkReader(io.RawIOBase):
    """Hands on another binary file's bytes, never more than a chunk at a time.

    Args:
        inner: the file to read; closed together with this one.
        total: its size in bytes, for ``progress``.
        progress: called after every chunk.
    """

    def __init__(
        self, inner: BinaryIO, total: int = 0, progress: ByteProgress | None = None
    ) -> None:
        self._inner = inner
        self._done = 0
        self._total = total
        self._progress = progress

    def readable(self) -> bool:
        """Return True: the only thing this file can do is be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill up to a chunk of ``buffer`` and return the number of bytes, 0 at the end."""
        count: int = self._inner.readinto(memoryview(buffer)[:CHUNK_BYTES])  # type: ignore[attr-defined]
        if count and self._progress is not None:
            self._done += count
            self._progress(self._done, self._total)
        return count

    def seekable(self) -> bool:
        """Return whether the inner file can be read from any place."""
        return self._inner.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another place; what is passed over counts as read."""
        self._done = self._inner.seek(offset, whence)
        return self._done

    def close(self) -> None:
        """Close the inner file too."""
        self._inner.close()
        super().close()


def regular_file_size(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises:
        StoreError: if there is nothing at ``path``, or something that is not a regular file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise StoreError(f"there is no file {path}; check the path") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be opened: {_reason(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{path} is a folder; name the file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path} is not a regular file; copy its content to one")
    return status.st_size


def open_bytes(path: Path, progress: ByteProgress | None = None) -> ChunkReader:
    """Open a regular file for reading in chunks.

    Raises:
        StoreError: if it is not there, not a regular file or may not be read.
    """
    size = regular_file_size(path)
    try:
        return ChunkReader(path.open("rb", buffering=0), size, progress)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
