"""The bytes of a pickle file, decompressed on the way; no more can be taken than there are.

Every length inside a pickle is a claim by whoever wrote it. It is compared with the bytes that can
still come before anything of that size is allocated: the rest of the file, or for a compressed file
``EXPANSION_FLOOR_BYTES`` plus ``MAX_EXPANSION`` times its own size.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from cider.data.array_on_disk import BytesOnDisk
from cider.data.file_bytes import CHUNK_BYTES, ChunkReader, open_bytes, regular_file_size
from cider.data.spool import TextOnDisk
from cider.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cider.data.file_bytes import ByteProgress
    from cider.data.spool import Spool

MAX_EXPANSION = 200
"""Most bytes that one compressed byte may become. Padded feature arrays stay below 50."""
EXPANSION_FLOOR_BYTES = 2**30
"""Bytes that a compressed file may become whatever its size: small files of zeros are honest."""

_BUFFER_BYTES = 2**20
_MAGIC_BYTES = 6

_REFUSED_MAGIC = {
    b"\x04\x22\x4d\x18": "is compressed with lz4, which cannot be read here; write it again with "
    "joblib.dump(..., compress='gzip')",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd, which cannot be read here; decompress it first",
    b"PK\x03\x04": "is a zip archive (.npz, .pt or .zip), not a pickle; give the command that "
    "reads such files, or unpack it first",
    b"ZF": "was written by joblib 0.9 or older, which cannot be read here; load and dump it again "
    "with a newer joblib",
}


class PickleSource:
    """Bytes taken in order from a stream that holds, or is allowed to hold, only so many.

    Args:
        stream: where the bytes come from; ``read`` and ``readinto`` return fewer only at its end.
        path: the file, for messages.
        limit: bytes that may be taken in all.
        compressed: True if the limit is the allowance of a compressed file, not a known size.
        on_disk_from: bytes of one instruction that are passed over and stay in the file, from this
            many on; None: never. The position is then a place in the file.
        spool: takes the bytes that would be passed over and stand in the file in another form.
    """

    __slots__ = (
        "_built", "_compressed", "_limit", "_on_disk_from", "_spool", "_stream", "path", "position",
    )  # fmt: skip

    def __init__(
        self,
        stream: BinaryIO,
        path: Path,
        limit: int,
        *,
        compressed: bool = False,
        on_disk_from: int | None = None,
        spool: Spool | None = None,
    ) -> None:
        self.path = path
        self.position = 0
        self._stream = stream
        self._built = 0
        self._limit = limit
        self._compressed = compressed
        self._on_disk_from = on_disk_from
        self._spool = spool

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        if size > self._limit - self.position:
            raise self._overrun(size)
        data = self._stream.read(size)
        self.position += len(data)
        if len(data) != size:
            raise self._ended()
        return data

    def pass_over(self, size: int) -> BytesOnDisk | None:
        """Leave the next ``size`` bytes on disk if they are many enough, else return None."""
        if self._on_disk_from is None or size < self._on_disk_from:
            return None
        if self._compressed and self._spool is None:
            return None
        self.require(size)
        if self._compressed and self._spool is not None:
            return self._spool.keep(self.path, self._chunks(size), size)
        found = BytesOnDisk(self.path, self.position, size)
        self.position += size
        self._stream.seek(self.position)
        return found

    def pass_over_text(self, size: int) -> TextOnDisk | None:
        """Do the same with UTF-8 text, if what it stands for can be kept too."""
        found = None if self._spool is None else self.pass_over(size)
        return None if found is None or self._spool is None else TextOnDisk(found, self._spool)

    def _chunks(self, size: int) -> Iterator[bytes]:
        for done in range(0, size, CHUNK_BYTES):
            yield self.take(min(CHUNK_BYTES, size - done))

    def take_mutable(self, size: int) -> bytearray:
        """Return the next ``size`` bytes as a bytearray, which grows only as they arrive."""
        self.require(size)
        data = bytearray()
        while len(data) < size:
            data += self.take(min(size - len(data), CHUNK_BYTES))
        return data

    def fill(self, buffer: memoryview) -> None:
        """Read exactly as many bytes as ``buffer`` has, into it."""
        self.require(len(buffer))
        count = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self.position += count
        if count != len(buffer):
            raise self._ended()

    def line(self) -> bytes:
        """Return the bytes up to the next line feed, without it."""
        data = self._stream.readline(self._limit - self.position)
        self.position += len(data)
        if not data.endswith(b"\n"):
            raise self._ended()
        return data[:-1]

    def require(self, size: int) -> None:
        """Check that ``size`` more bytes can come.

        Raises:
            StoreError: if they cannot.
        """
        if size > self._limit - self.position:
            raise self._overrun(size)

    def allows_building(self, size: int) -> bool:
        """Count ``size`` bytes or items that are built out of what was taken.

        An honest file builds each byte at most twice (text to bytes, bytes to an array), so the
        sum stays below twice the limit; one that converts the same text again and again does not.
        """
        self._built += size
        return self._built <= 2 * self._limit

    def finish(self) -> None:
        """Check that nothing follows what was taken.

        Raises:
            StoreError: if more bytes follow: several pickles in one file would be lost silently.
        """
        try:
            rest = self._stream.read(1)  # also what makes a decompressor compare its checksum
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise StoreError(
                f"{self.path} is damaged at its end ({type(error).__name__}); copy or download it "
                "again"
            ) from error
        if rest:
            raise StoreError(
                f"{self.path} goes on after its first object ended at byte {self.position}, and "
                "only files of one object are read; write everything as one object (a dict)"
            )

    def _overrun(self, size: int) -> StoreError:
        if self._compressed:
            return StoreError(
                f"{self.path} expands to more than the {self._limit} bytes allowed for its size "
                f"({EXPANSION_FLOOR_BYTES} plus {MAX_EXPANSION} times the compressed bytes); "
                "decompress it yourself if you trust it, and give the result"
            )
        return StoreError(
            f"{self.path} is truncated or damaged: at byte {self.position} it claims {size} more "
            f"bytes where {self._limit - self.position} remain; copy or download it again"
        )

    def _ended(self) -> StoreError:
        return StoreError(
            f"{self.path} is truncated or damaged: it ends at byte {self.position} in the middle "
            "of its content; copy or download it again"
        )


@contextmanager
def open_source(
    path: Path,
    progress: ByteProgress | None = None,
    *,
    on_disk_from: int | None = None,
    spool: Spool | None = None,
) -> Iterator[PickleSource]:
    """Open a pickle file, compressed (gzip, zlib, bz2, lzma, xz) or not.

    Args:
        path: a regular file that is not empty.
        progress: called with the bytes of the file read so far, and its size.
        on_disk_from: see ``PickleSource``; a compressed file's bytes are left to ``spool``.
        spool: see ``PickleSource``.

    Raises:
        StoreError: if the file cannot be opened, is empty or is of another kind.
    """
    size = regular_file_size(path)
    if size == 0:
        raise StoreError(f"{path} is empty; copy or download it again")
    with io.BufferedReader(open_bytes(path, progress), _BUFFER_BYTES) as file:
        magic = file.peek(_MAGIC_BYTES)[:_MAGIC_BYTES]
        for refused, sentence in _REFUSED_MAGIC.items():
            if magic.startswith(refused):
                raise StoreError(f"{path} {sentence}")
        decompress = _decompressor(magic)
        if decompress is None:
            yield PickleSource(file, path, size, on_disk_from=on_disk_from, spool=spool)
            return
        limit = EXPANSION_FLOOR_BYTES + MAX_EXPANSION * size
        expanded = ChunkReader(decompress(file))
        with io.BufferedReader(expanded, _BUFFER_BYTES) as stream:
            yield PickleSource(
                stream, path, limit, compressed=True, on_disk_from=on_disk_from, spool=spool
            )


def _decompressor(magic: bytes) -> Callable[[BinaryIO], BinaryIO] | None:
    if magic.startswith(b"\x1f\x8b"):
        return lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic.startswith(b"BZh"):
        return lambda file: cast("BinaryIO", bz2.BZ2File(file))
    if magic.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        return lambda file: cast("BinaryIO", lzma.LZMAFile(file))
    # A zlib header is the one byte 0x78 and a second that makes both a multiple of 31; no pickle
    # begins with it.
    if magic[:1] == b"\x78" and int.from_bytes(magic[:2], "big") % 31 == 0:
        return lambda file: cast("BinaryIO", _ZlibFile(file))
    return None


class _ZlibFile(io.RawIOBase):
    """A zlib stream, the default of ``joblib.dump``, as a readable file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(_BUFFER_BYTES)
            data = self._inflate.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed:
                raise EOFError("the compressed stream has no end")
        return 0
