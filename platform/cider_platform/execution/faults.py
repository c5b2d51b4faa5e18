"""What went wrong in a training, as one sentence for the person who reads it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cider.errors import CiderError

if TYPE_CHECKING:
    from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries that write files themselves say it in their own error classes.
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, of whatever class, says that a disk is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(text in str(error) for text in _FULL_TEXTS)


# RuntimeErrors of torch's CPU and GPU allocators, and what libraries below them say.
_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, of whatever class, says that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, CiderError):
        return False
    return any(text in str(error) for text in _MEMORY_TEXTS)


def sentence(error: BaseException, folder: Path) -> str:
    """Return an error as one sentence.

    Args:
        error: what a training, or the driver of a search, ended with.
        folder: where it writes, for errors of the disk.
    """
    if isinstance(error, CiderError):
        return str(error)
    if is_disk_full(error):
        return f"no space is left on the disk of {folder}: make room there"
    if is_out_of_memory(error):
        return f"{memory_words(error)}; lower training.batch_size, or give fewer --slots"
    return f"{type(error).__name__}: {_first_line(error)}"


def memory_words(error: BaseException) -> str:
    """Return that memory ran out, and where, as the beginning of a sentence."""
    return f"out of memory ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
