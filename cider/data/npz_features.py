"""Read a user's audio and vision features from an npz file, whatever way they are laid out.

Layouts of one modality, N utterances, S steps, F width:

- ``(N, F)``: one vector per utterance, a sequence of length 1;
- ``(N, S, F)``: padded; ``<modality>_lengths`` (N,) tells the steps, else trailing zero steps are
  padding;
- ``(sum of steps, F)`` with ``<modality>_lengths`` (N,) or ``<modality>_offsets`` (N or N + 1,).

``lengths`` or ``length`` serves both modalities where they share it. ``id`` (N,) names the rows.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cider.data.array_on_disk import ArrayOnDisk
from cider.data.cleaning import content_lengths
from cider.data.npz_member import read_member
from cider.data.schema import FRAME_MODALITIES
from cider.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from cider.data.spool import Spool

Array = np.ndarray | ArrayOnDisk

_SHARED_LENGTHS = ("lengths", "length")
_BESIDE = frozenset(
    {
        *("id", *_SHARED_LENGTHS),
        *(f"{name}_{kind}" for name in FRAME_MODALITIES for kind in ("lengths", "offsets")),
    }
)
"""Names of the arrays that are read beside the frames."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class FrameRows:
    """One modality: utterance ``i`` owns ``frames[start[i] : start[i] + lengths[i]]``."""

    frames: Array
    """(all steps, F), any number type."""
    starts_N: np.ndarray
    lengths_N: np.ndarray
    padded: int
    """Longest sequence, or the padded length the file has."""

    def __len__(self) -> int:
        return len(self.lengths_N)

    def row(self, index: int) -> np.ndarray:
        """Return the frames of one utterance, float32 (S, F)."""
        start = self.starts_N[index]
        with np.errstate(over="ignore"):  # What float32 cannot hold becomes infinite: a fault.
            return self.frames[start : start + self.lengths_N[index]].astype(np.float32)


@dataclass(frozen=True, slots=True)
class NpzFeatures:
    """What an npz file holds."""

    modalities: dict[str, FrameRows]
    ids: list[str] | None
    guessed_lengths: list[str]
    """Modalities whose trailing zero steps were taken for padding."""
    ignored: list[str]
    """Arrays that are not read."""


def read_npz(path: Path, spool: Spool) -> NpzFeatures:
    """Read and check the features of a corpus.

    Args:
        path: the npz file, compressed or not.
        spool: takes large arrays of frames, whose rows are then read when they are asked for.

    Raises:
        StoreError: if the file is no npz of plain arrays, or an array is not what it should be.
    """
    frames, arrays, names = _load(path, spool)
    missing = [name for name in FRAME_MODALITIES if name not in frames]
    if missing:
        raise StoreError(
            f"{path.name} lacks the array {' and '.join(missing)}; it has {', '.join(names)}"
        )
    used = {"id"}
    guessed: list[str] = []
    modalities = {}
    for name in FRAME_MODALITIES:
        key = next(
            (k for k in (f"{name}_lengths", f"{name}_offsets", *_SHARED_LENGTHS) if k in arrays), ""
        )
        used |= {name, key}
        where = f"{path.name}: {name}"
        modalities[name] = _rows(frames[name], arrays.get(key), key, where)
        if frames[name].ndim == 3 and not key:
            guessed.append(name)
    ids = _ids(arrays["id"], path) if "id" in arrays else None
    return NpzFeatures(modalities, ids, guessed, sorted(set(names) - used))


def _load(path: Path, spool: Spool) -> tuple[dict[str, Array], dict[str, np.ndarray], list[str]]:
    """Return the frames by modality, the arrays that describe them, and the names of all arrays."""
    if not path.is_file():
        raise StoreError(f"there is no file {path}; check the path")
    try:
        # numpy leaves a file of its own open when it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise StoreError(f"{path.name} is a single array, not an npz file with several")
            names = archive.files
            frames = {
                name: read_member(archive, name, spool, path)
                for name in names
                if name in FRAME_MODALITIES
            }
            return frames, {name: archive[name] for name in names if name in _BESIDE}, names
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allow_pickle" in reason:
            reason = "it holds Python objects, which are never unpickled; save plain number arrays"
        raise StoreError(f"{path.name} cannot be read as an npz file: {reason}") from error


def _ids(array: np.ndarray, path: Path) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise StoreError(
            f"{path.name}: id must be one row of text, got {array.dtype} of shape {array.shape}"
        )
    # bytes are read as UTF-8, the encoding of the table.
    names = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    return [str(name) for name in names.tolist()]


def _rows(array: Array, steps: np.ndarray | None, key: str, where: str) -> FrameRows:
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3) or 0 in array.shape:
        raise StoreError(
            f"{where} must be numbers of shape (utterances, width), (utterances, steps, width) or "
            f"(all steps, width), got {array.dtype} of shape {array.shape}"
        )
    if steps is not None and (steps.ndim != 1 or steps.dtype.kind not in "iu"):
        raise StoreError(
            f"{where}: {key} must be one row of whole numbers, got {steps.dtype} {steps.shape}"
        )
    if array.ndim == 3:
        return _padded(array, steps, key, where)
    if steps is None:
        count = len(array)
        return FrameRows(array, np.arange(count), np.ones(count, np.int64), 1)
    return _ragged(array, steps.astype(np.int64), key, where)


def _padded(array: Array, lengths: np.ndarray | None, key: str, where: str) -> FrameRows:
    count, padded, width = array.shape
    if lengths is None:
        # A user's array says no more; an utterance of zeros only keeps one step.
        parts = [
            content_lengths(array[start : start + _ROWS_AT_ONCE])
            for start in range(0, count, _ROWS_AT_ONCE)
        ]
        lengths = np.maximum(np.concatenate(parts), 1)
    elif key.endswith("_offsets"):
        raise StoreError(f"{where} is padded, so {key} has no meaning; name its lengths instead")
    elif len(lengths) != count:
        raise StoreError(f"{where}: {len(lengths)} {key} for {count} rows")
    _in_range(lengths, padded, key, where)
    starts_N = np.arange(count) * padded
    steps = array.reshape(count * padded, width)
    return FrameRows(steps, starts_N, lengths.astype(np.int64), padded)


def _ragged(array: Array, steps: np.ndarray, key: str, where: str) -> FrameRows:
    total = len(array)
    if key.endswith("_offsets"):
        starts_N = steps[:-1] if steps[-1] == total else steps
        lengths_N = np.diff(np.append(starts_N, total))
        if not len(starts_N) or starts_N[0] != 0:
            raise StoreError(f"{where}: {key} must begin with 0")
    else:
        lengths_N = steps
        starts_N = np.cumsum(lengths_N) - lengths_N
    _in_range(lengths_N, total, key, where)
    if lengths_N.sum() != total:
        raise StoreError(
            f"{where}: {key} add up to {lengths_N.sum()} steps, the array has {total} rows"
        )
    return FrameRows(array, starts_N, lengths_N, int(lengths_N.max()))


def _in_range(lengths_N: np.ndarray, longest: int, key: str, where: str) -> None:
    bad = np.flatnonzero((lengths_N < 1) | (lengths_N > longest))
    if len(bad):
        raise StoreError(
            f"{where}: {key or 'lengths'} must give each utterance 1 to {longest} steps, row "
            f"{bad[0] + 1} has {lengths_N[bad[0]]}"
        )
