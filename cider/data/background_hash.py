"""The SHA-256 of a file, computed while the file is used for something else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cider.data.hashing import file_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cider.data.file_bytes import ByteProgress


class _Stopped(Exception):  # noqa: N818 - ends the thread, never seen by anybody
    pass


@contextmanager
def hashed_meanwhile(path: Path, progress: ByteProgress | None) -> Iterator[Callable[[], str]]:
    """Begin to hash a file in a thread of its own, and yield a function that waits for the result.

    Hashing releases the interpreter's lock, so it takes a second core where there is one. Leaving
    the context ends the thread, at the next chunk.

    Args:
        path: a regular file.
        progress: as for ``file_sha256``; called in that thread.
    """
    stop = threading.Event()

    def follow(done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            progress(done, total)

    with ThreadPoolExecutor(max_workers=1) as pool:
        result = pool.submit(file_sha256, path, follow)
        try:
            yield result.result
        finally:
            stop.set()
