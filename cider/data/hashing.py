"""The SHA-256 of files too large to hold in memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cider.data.file_bytes import open_bytes
from cider.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.file_bytes import ByteProgress

_BUFFER_BYTES = 2**20


def file_sha256(path: Path, progress: ByteProgress | None = None) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Args:
        path: a regular file, which may be empty.
        progress: called with the bytes read so far and the bytes of the whole file.

    Raises:
        StoreError: if the file is not there or cannot be read.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with open_bytes(path, progress) as file:
        try:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
