"""Bytes that a file holds in another form, put where rows can be read from them.

The arrays of a compressed pickle cannot be read row by row where they are, nor those that Python 3
wrote in protocols 1 and 2, as text. They go through a file without a name: it takes no room any
more when it is closed, or the process is killed.
"""

from __future__ import annotations

import codecs
import shutil
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from cider.data.array_on_disk import BytesOnDisk
from cider.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Spool:
    """Context manager: a temporary file that grows, and can be read until the context is left.

    Args:
        folder: where it takes its room; made if absent, when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.size = 0
        """Bytes kept so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, path: Path, chunks: Iterable[bytes], at_most: int) -> BytesOnDisk:
        """Write bytes and return where they are.

        Args:
            path: the file they come from, for messages.
            chunks: the bytes in order.
            at_most: how many there may be.

        Raises:
            StoreError: if there is no room for so many, or they cannot be written.
        """
        offset = self.size
        try:
            file = self._opened()
            free = shutil.disk_usage(self._folder).free
            if free < at_most:
                raise StoreError(
                    f"{path} is unpacked into {self._folder}, where {free} bytes are free and the "
                    f"next array needs {at_most}; make room there, or name another store"
                )
            for chunk in chunks:
                file.write(chunk)
                self.size += len(chunk)
            file.flush()
        except OSError as error:
            raise StoreError(
                f"{path} is unpacked into {self._folder}, which cannot be written: "
                f"{error.strerror or error}"
            ) from error
        return BytesOnDisk(path, offset, self.size - offset, file)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - see the module
        return self._file


@dataclass(frozen=True, slots=True, eq=False)
class TextOnDisk:
    """UTF-8 text of a file that was passed over: bytes, one character each, in all likelihood."""

    held: BytesOnDisk
    spool: Spool

    def read(self) -> str:
        """Return the text."""
        return self.held.read().decode("utf-8")

    def latin1(self) -> BytesOnDisk:
        """Return the bytes that the characters stand for.

        Raises:
            ValueError: if it is no UTF-8, or has a character that stands for no byte.
        """
        return self.spool.keep(self.held.path, self._latin1(), self.held.size)

    def _latin1(self) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        for chunk in self.held.chunks():
            yield decoder.decode(chunk).encode("latin-1")
        decoder.decode(b"", final=True)
