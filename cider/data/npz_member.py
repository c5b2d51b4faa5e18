"""One array of an npz file, unpacked onto the disk if it is large, so that its rows can be read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from numpy.lib import format as npy

from cider.data.array_on_disk import ArrayOnDisk
from cider.data.file_bytes import CHUNK_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from cider.data.spool import Spool

ON_DISK_FROM = 2**20
"""Arrays of at least this many bytes are not held in memory."""

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_member(
    archive: np.lib.npyio.NpzFile, name: str, spool: Spool, path: Path
) -> np.ndarray | ArrayOnDisk:
    """Return an array of an npz file; a large one of plain numbers in C order is on disk.

    Args:
        archive: the open file.
        name: one of its ``files``.
        spool: takes what is unpacked. An array that is not compressed is copied too: that is when
            the archive's checksum is compared.
        path: the file, for messages.

    Raises:
        ValueError: if the array has other bytes than its header says, or holds Python objects.
        zipfile.BadZipFile: if its checksum differs.
    """
    zipped: Any = archive.zip
    if f"{name}.npy" not in zipped.namelist():
        return archive[name]
    with zipped.open(f"{name}.npy") as member:
        read_header = _HEADERS.get(npy.read_magic(member))
        if read_header is None:
            return archive[name]
        shape, fortran_order, dtype = read_header(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or fortran_order or not shape or size < ON_DISK_FROM:
            return archive[name]
        there = zipped.getinfo(f"{name}.npy").file_size - member.tell()
        if there != size:
            raise ValueError(f"{name} needs {size} bytes for its shape {shape} and has {there}")
        held = spool.keep(path, iter(lambda: member.read(CHUNK_BYTES), b""), size)
    return ArrayOnDisk(held, dtype, shape)
