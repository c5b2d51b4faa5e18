"""Reading feature pickles and joblib files from anywhere without running anything in them.

``read_pickle`` returns containers, numbers, text and NumPy arrays; any file that asks for something
else is refused by the name of what it asks for. Files may be written by ``pickle`` in protocols 0
to 5 or by ``joblib``, and be compressed with gzip, zlib, bz2, lzma or xz.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from cider.data.array_on_disk import ArrayOnDisk, BytesOnDisk
from cider.data.pickle_globals import resolve_plain
from cider.data.pickle_machine import PickleMachine
from cider.data.pickle_source import open_source
from cider.data.spool import TextOnDisk
from cider.errors import UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cider.data.file_bytes import ByteProgress
    from cider.data.spool import Spool

MAX_DEPTH = 100
"""Containers within containers. Feature files have three or four."""
MAX_ITEMS = 100_000_000
"""Items met when every container is walked through wherever it stands, as a consumer would."""

_LEAVES = frozenset({str, bytes, bytearray, int, float, bool, type(None)})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})


def read_pickle(
    path: Path,
    *,
    progress: ByteProgress | None = None,
    on_disk_from: int | None = None,
    spool: Spool | None = None,
) -> object:
    """Return the content of a pickle or joblib file, compressed or not.

    The peak of memory is the arrays themselves: their bytes are read once into where they stay.

    Args:
        path: a regular file that holds one object.
        progress: called with the bytes of the file read so far, and its size.
        on_disk_from: arrays of at least this many bytes come as ``ArrayOnDisk`` where they are
            written as raw bytes in C order and the file is not compressed, and take no memory.
            Bytes of that size that belong to no array come as ``BytesOnDisk``.
        spool: takes arrays of that size where the file is compressed, or has their bytes as text;
            without it they are held in memory. Text of that size comes as ``TextOnDisk`` then.

    Returns:
        dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, bool, None, NumPy
        arrays (of numbers, text, bytes or these objects), NumPy scalars and dtypes.
        ``collections.OrderedDict`` comes as a dict; Python 2 strings come as text in Latin-1.

    Raises:
        UnsafePickleError: if the file asks for anything else; nothing in it has been run.
        StoreError: if it is missing, empty, truncated, damaged, of another kind or too large.
    """
    with open_source(path, progress, on_disk_from=on_disk_from, spool=spool) as source:
        value = PickleMachine(source, resolve_plain).load()
        source.finish()
    _check_content(value, path)
    return value


class _Walk:
    """One container, how far its children have been walked, and how many items they hold."""

    __slots__ = ("children", "size", "value")

    def __init__(self, value: object) -> None:
        self.value = value
        self.children: Iterator[object] = iter(_children(value))
        self.size = 1


def _check_content(root: object, path: Path) -> None:
    """Check that only the promised types are there, in a tree that can be walked in the end.

    A container that stands in many places takes memory once but time everywhere: thirty lists that
    each hold the next one twice are a billion items for whoever prints them.
    """
    sizes: dict[int, int] = {}
    walks = [_Walk((root,))]
    open_ids: set[int] = set()
    while walks:
        walk = walks[-1]
        inner = _next_container(walk, sizes, path)
        if walk.size > MAX_ITEMS or len(walks) > MAX_DEPTH or id(inner) in open_ids:
            raise UnsafePickleError(
                f"{path} holds containers inside one another without a reasonable end (more than "
                f"{MAX_DEPTH} deep or {MAX_ITEMS} items), which is refused; save plain dicts of "
                "arrays"
            )
        if inner is not None:
            open_ids.add(id(inner))
            walks.append(_Walk(inner))
            continue
        walks.pop()
        open_ids.discard(id(walk.value))
        sizes[id(walk.value)] = walk.size
        if walks:
            walks[-1].size += walk.size


def _next_container(walk: _Walk, sizes: dict[int, int], path: Path) -> object | None:
    """Count children up to the next container that has not been walked, and return that."""
    for child in walk.children:
        kind = type(child)
        if kind in _LEAVES:
            walk.size += 1
        elif kind in _CONTAINERS or (kind is np.ndarray and child.dtype.hasobject):  # type: ignore[attr-defined]
            if id(child) not in sizes:
                return child
            walk.size += sizes[id(child)]
        elif kind in (np.ndarray, ArrayOnDisk, BytesOnDisk, TextOnDisk) or isinstance(
            child, (np.generic, np.dtype)
        ):
            walk.size += 1
        else:
            raise UnsafePickleError(
                f"{path} holds {getattr(child, 'name', kind.__name__)} as a value, which is "
                "refused; nothing in the file was run, so save arrays, containers, numbers and "
                "text only"
            )
    return None


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return chain(value.keys(), value.values())
    if isinstance(value, np.ndarray):
        return value.flat
    assert isinstance(value, (list, tuple, set, frozenset))
    return value
