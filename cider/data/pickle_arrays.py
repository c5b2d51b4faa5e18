"""NumPy arrays, scalars and dtypes of a pickle, built from checked parts.

Each builder takes the arguments or the state that NumPy's own would get, and checks that they
describe an array of numbers, text or objects whose bytes are really there.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.array_on_disk import ArrayOnDisk, BytesOnDisk
from cider.data.pickle_values import Global, Refused, Unbuilt, shown
from cider.data.spool import TextOnDisk

if TYPE_CHECKING:
    from cider.data.pickle_source import PickleSource

NDARRAY = Global("numpy.ndarray")
"""The class that arrays name as theirs; it can be neither called nor instantiated."""

# Booleans, numbers, byte strings, text and objects: no records, no dates, nothing of size 0.
_DTYPE_CODE = re.compile(
    r"[<>|=]?(\?|b1|[iu][1248]|f2|f4|f8|f16|c8|c16|c32|O|O4|O8|[SU][1-9]\d{0,8})"
)
_LAST_CODE_POINT = 0x10FFFF
_MAX_DIMENSIONS = 64
_MAX_ITEMS = 2**48
_ARRAY_STATE_VERSION = 1


def build_dtype(arguments: tuple[Any, ...]) -> Unbuilt:
    """Return ``numpy.dtype(code, ...)``, whose state then gives the byte order."""
    code = arguments[0]
    if type(code) is not str or not _DTYPE_CODE.fullmatch(code):
        raise Refused(f"describes an array of the type {shown(code)}")
    return Unbuilt("numpy.dtype", partial(_complete_dtype, np.dtype(code)))


def _complete_dtype(dtype: np.dtype[Any], state: Any, _: PickleSource) -> np.dtype[Any]:  # noqa: ANN401
    _version, order, *structure, item_bytes, _alignment, _flags = state[:8]
    if structure != [None, None, None] or item_bytes not in (-1, dtype.itemsize):
        raise Refused("describes an array of records")
    if any(state[8:]):
        raise Refused("describes an array type with metadata")
    if order not in ("<", ">", "|", "="):
        raise Refused(f"describes an array of the byte order {shown(order)}")
    return dtype.newbyteorder(order) if order in "<>" else dtype


def build_scalar(arguments: tuple[Any, ...]) -> object:
    """Return ``numpy.core.multiarray.scalar(dtype, bytes)``."""
    dtype, data = arguments
    return _plain_array(dtype, (1,), as_bytes(data))[0]


def start_array(arguments: tuple[Any, ...]) -> Unbuilt:
    """Return ``numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b")``."""
    kind, shape, code = arguments
    if kind is not NDARRAY:
        raise Refused("rebuilds an array of a class other than numpy.ndarray")
    if shape != (0,) or code not in (b"b", "b"):
        raise Refused("rebuilds an array that is not empty at first")
    return Unbuilt("numpy.ndarray", _complete_array)


def _complete_array(state: Any, _: PickleSource) -> np.ndarray | ArrayOnDisk:  # noqa: ANN401 - checked here
    if type(state) is not tuple or len(state) != 5 or state[0] != _ARRAY_STATE_VERSION:
        raise Refused("gives an array a state of an unknown form")
    _version, shape, dtype, is_fortran, data = state
    count = count_items(shape)
    if not isinstance(dtype, np.dtype):
        raise Refused(f"gives an array a {type(dtype).__name__} for its type")
    if type(data) is BytesOnDisk and not (is_fortran and len(shape) > 1):
        return array_on_disk(data, dtype, shape)
    if dtype.hasobject:
        if type(data) is not list or len(data) != count:
            raise Refused(f"gives an object array of shape {shape} other content")
    else:
        data = as_bytes(data)
        _check_size(shape, dtype, len(data))
    array = np.empty(0, np.int8)
    # Every part was checked. NumPy keeps the bytes object as the array's memory: nothing is copied.
    array.__setstate__((_ARRAY_STATE_VERSION, shape, dtype, bool(is_fortran), data))  # type: ignore[arg-type]
    return checked_text(array)


def array_on_disk(data: BytesOnDisk, dtype: Any, shape: Any) -> np.ndarray | ArrayOnDisk:  # noqa: ANN401
    """Return an array in C order over bytes that were left in the file.

    Args:
        data: where they are.
        dtype: must be a dtype of what needs no look at the bytes.
        shape: must need exactly as many bytes.
    """
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise Refused("takes an array of objects from raw bytes")
    _check_size(shape, dtype, data.size)
    array = ArrayOnDisk(data, dtype, shape)
    # Text may have characters that do not exist, which only a look at it tells.
    return checked_text(array[:]) if dtype.kind == "U" else array


def array_from_buffer(arguments: tuple[Any, ...]) -> np.ndarray | ArrayOnDisk:
    """Return ``numpy.core.numeric._frombuffer(...)``, the form of protocol 5."""
    buffer, dtype, shape, order, *axes = arguments
    if type(buffer) is BytesOnDisk:
        if order == "C" and not axes:
            return array_on_disk(buffer, dtype, shape)
        buffer = buffer.read()
    if type(buffer) not in (bytes, bytearray):
        raise Refused(f"takes an array from a {type(buffer).__name__}")
    if order == "K" and axes:
        return _plain_array(dtype, shape, buffer).reshape(shape).transpose(axes[0])
    return _plain_array(dtype, shape, buffer).reshape(shape, order=checked_order(order))


def _plain_array(dtype: Any, shape: Any, data: bytes | bytearray) -> np.ndarray:  # noqa: ANN401
    """Return a flat array over ``data``, which must be exactly what ``shape`` needs."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise Refused("takes an array of objects from raw bytes")
    _check_size(shape, dtype, len(data))
    return checked_text(np.frombuffer(data, dtype))


def count_items(shape: Any) -> int:  # noqa: ANN401 - checked here
    """Return the number of items of an array.

    Raises:
        Refused: if ``shape`` is not a tuple of at most 64 integers whose product can be addressed.
    """
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
        raise Refused(f"describes an array whose shape is {shown(shape)}")
    if any(type(size) is not int or not 0 <= size <= _MAX_ITEMS for size in shape):
        raise Refused(f"describes an array of the shape ({', '.join(map(shown, shape))})")
    count = math.prod(shape)
    if count > _MAX_ITEMS:
        raise Refused(f"describes an array of the shape {shape}")
    return count


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], held_bytes: int) -> None:
    needed = count_items(shape) * dtype.itemsize
    if needed != held_bytes:
        raise Refused(
            f"describes an array of shape {shape} and type {dtype}, {needed} bytes, "
            f"and holds {held_bytes} bytes for it"
        )


def checked_order(order: object) -> Any:  # noqa: ANN401 - a literal type in NumPy's stubs
    """Return "C" or "F", or refuse."""
    if order not in ("C", "F"):
        raise Refused(f"describes an array of the order {shown(order)}")
    return order


def checked_text(array: np.ndarray) -> np.ndarray:
    """Return the array; refuse text with code points that do not exist.

    They would raise far away, when somebody reads that element.
    """
    if array.dtype.kind == "U" and array.size:
        points = array.reshape(-1, order="A").view(array.dtype.str[0] + "u4")
        if points.max() > _LAST_CODE_POINT:
            raise Refused("holds text with characters that do not exist")
    return array


def as_bytes(data: object) -> bytes:
    """Return bytes, which Python 2 wrote as a string."""
    if type(data) is str:
        return data.encode("latin-1")
    if type(data) is TextOnDisk:
        return data.read().encode("latin-1")
    if type(data) is BytesOnDisk:
        return data.read()
    if type(data) is not bytes:
        raise Refused(f"gives an array a {type(data).__name__} for its bytes")
    return data
