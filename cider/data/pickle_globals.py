"""All that a feature file may refer to by name, and what is built for it.

joblib's files are pickles too, but it writes the bytes of an array between two instructions of the
program, behind the instruction that gives an array its shape and type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.pickle_arrays import (
    NDARRAY,
    array_from_buffer,
    array_on_disk,
    as_bytes,
    build_dtype,
    build_scalar,
    checked_order,
    checked_text,
    count_items,
    start_array,
)
from cider.data.pickle_machine import PickleMachine
from cider.data.pickle_values import Global, Refused, Unbuilt, check_key, shown
from cider.data.spool import TextOnDisk

if TYPE_CHECKING:
    from cider.data.array_on_disk import ArrayOnDisk, BytesOnDisk
    from cider.data.pickle_source import PickleSource

# Protocols 0 to 2 write the names that Python 2 had.
_PYTHON_2_MODULES = {"__builtin__": "builtins", "commands": "subprocess", "copy_reg": "copyreg"}
# The same things under the names of other versions of NumPy and joblib.
_RENAMED = {"numpy._core.": "numpy.core.", "sklearn.externals.joblib.": "joblib."}
_LATIN1 = ("latin1", "latin-1")
_SYSTEM_MODULES = ("posix", "nt")


def resolve_plain(module: str, name: str) -> Global:
    """Return what a name means in a file of arrays, containers, numbers and text.

    Raises:
        Refused: if the name means nothing there.
    """
    found = PLAIN_GLOBALS.get(canonical_name(module, name))
    if found is None:
        raise Refused(f"asks for {printable(module, name)}")
    return found


def canonical_name(module: str, name: str) -> str:
    """Return a dotted name as Python 3, NumPy 1 and joblib write it."""
    full = f"{_PYTHON_2_MODULES.get(module, module)}.{name}"
    for old, new in _RENAMED.items():
        if full.startswith(old):
            return new + full[len(old) :]
    return full


def printable(module: str, name: str) -> str:
    """Return a name out of a pickle as short ASCII, whatever is in it."""
    module = _PYTHON_2_MODULES.get(module, module)
    text = shown(f"{module[:100]}.{name[:100]}")[1:-1]
    # The file has the name of the module that os is made of; people know it by the other one.
    return f"{text} ({shown('os.' + name[:100])[1:-1]})" if module in _SYSTEM_MODULES else text


def _read_joblib_array(state: Any, source: PickleSource) -> np.ndarray | ArrayOnDisk:  # noqa: ANN401
    """Read the array whose bytes joblib wrote between this instruction and the next."""
    if type(state) is not dict or state.get("subclass") is not NDARRAY:
        raise Refused("stores an array of a class other than numpy.ndarray")
    dtype, shape, alignment = (
        state["dtype"],
        state["shape"],
        state.get("numpy_array_alignment_bytes"),
    )
    order, count = checked_order(state["order"]), count_items(shape)
    if not isinstance(dtype, np.dtype):
        raise Refused(f"gives an array a {type(dtype).__name__} for its type")
    if dtype.hasobject:
        return _read_object_array(source)
    if alignment is not None:  # joblib 1.2 and later: a byte with the number of padding bytes
        source.take(source.take(1)[0])
    on_disk = source.pass_over(count * dtype.itemsize) if order == "C" else None
    if on_disk is not None:
        return array_on_disk(on_disk, dtype, shape)
    source.require(count * dtype.itemsize)
    array = np.empty(count, dtype)
    source.fill(array.view(np.uint8).data)
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    return checked_text(array).reshape(shape, order=order)


def _read_object_array(source: PickleSource) -> np.ndarray:
    # A pickle of its own, in which no further array can stand beside the program: the depth is one.
    array = PickleMachine(source, _resolve_nested).load()
    if type(array) is not np.ndarray:
        raise Refused(f"stores a {type(array).__name__} where an object array was announced")
    return array


def _resolve_nested(module: str, name: str) -> Global:
    found = resolve_plain(module, name)
    if found is _JOBLIB_ARRAY:
        raise Refused(f"asks for {printable(module, name)} inside an object array")
    return found


def _encode(arguments: tuple[Any, ...]) -> bytes | BytesOnDisk:
    """Return the bytes that protocols 0 to 2 write as text."""
    text, encoding = arguments
    if type(text) is TextOnDisk and encoding in _LATIN1:
        return text.latin1()
    if type(text) is not str or encoding not in _LATIN1:
        raise Refused(f"calls _codecs.encode with the encoding {shown(encoding)}")
    return text.encode("latin-1")


def _bytearray(arguments: tuple[Any, ...]) -> bytearray:
    if len(arguments) == 2:
        return bytearray(as_bytes(_encode(arguments)))
    return bytearray(as_bytes(*arguments)) if arguments else bytearray()


def _bytes(arguments: tuple[Any, ...]) -> bytes:
    if arguments:
        raise Refused("calls builtins.bytes with arguments")
    return b""


def _members(arguments: tuple[Any, ...]) -> list[Any]:
    (items,) = arguments or ([],)
    if type(items) is not list:
        raise Refused(f"makes a set of a {type(items).__name__}")
    for item in items:
        check_key(item)
    return items


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    (items,) = arguments or ([],)
    if type(items) is not list or any(len(item) != 2 for item in items):
        raise Refused("makes an ordered dict of something other than pairs")
    for key, _ in items:
        check_key(key)
    return dict(items)


def _reconstructor(arguments: tuple[Any, ...]) -> object:
    """Make an instance the way protocols 0 and 1 do."""
    kind, base, value = arguments
    if type(kind) is not Global or kind.create is None or base is not _OBJECT or value is not None:
        raise Refused("calls copyreg._reconstructor with something other than a plain class")
    return kind.create(())


_OBJECT = Global("builtins.object")
_JOBLIB_ARRAY = Global(
    "joblib.numpy_pickle.NumpyArrayWrapper",
    create=lambda _: Unbuilt("joblib.numpy_pickle.NumpyArrayWrapper", _read_joblib_array),
)
PLAIN_GLOBALS = {
    NDARRAY.name: NDARRAY,
    _OBJECT.name: _OBJECT,
    _JOBLIB_ARRAY.name: _JOBLIB_ARRAY,
} | {
    name: Global(name, call=builder)
    for name, builder in {
        "_codecs.encode": _encode,
        "builtins.bytearray": _bytearray,
        "builtins.bytes": _bytes,
        "builtins.frozenset": lambda arguments: frozenset(_members(arguments)),
        "builtins.set": lambda arguments: set(_members(arguments)),
        "collections.OrderedDict": _ordered_dict,
        "copyreg._reconstructor": _reconstructor,
        "numpy.core.multiarray._reconstruct": start_array,
        "numpy.core.multiarray.scalar": build_scalar,
        "numpy.core.numeric._frombuffer": array_from_buffer,
        "numpy.dtype": build_dtype,
    }.items()
}
"""By canonical name. None of these is the thing of that name."""
