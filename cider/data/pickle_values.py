"""What the values of a pickle are before they are ordinary objects, and how literals are spelt."""

from __future__ import annotations

import codecs
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cider.data.array_on_disk import BytesOnDisk

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.data.pickle_source import PickleSource

_SHOWN_CHARACTERS = 120
_LARGEST_KEY = 2**60
# Not the complex numbers, for which unequal ones of equal hash are easily found.
_PLAIN_KEYS = (str, bytes, int, float, bool, type(None), np.character, np.integer, np.floating)


class Refused(Exception):  # noqa: N818 - a phrase for the machine, never seen by a user
    """Something not allowed; the text continues a sentence that begins with the file's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """What a name in a pickle stands for: never the real thing, only what may be done with it."""

    name: str
    call: Callable[[tuple[Any, ...]], object] | None = None
    """Builds the value for a call with these arguments; None: it may not be called."""
    create: Callable[[tuple[Any, ...]], object] | None = None
    """Builds the object for an instantiation; None: it may not be instantiated."""


@dataclass(slots=True, eq=False)
class Unbuilt:
    """A value that becomes ``complete(state, source)`` when its state has been read."""

    name: str
    complete: Callable[[Any, PickleSource], object]
    value: object = None
    done: bool = False


@dataclass(slots=True, eq=False)
class InertObject:
    """An instance of a class that was not imported: its name and its state, and no behaviour."""

    class_name: str
    arguments: tuple[object, ...] = ()
    state: object = field(default_factory=dict)


class OrderedItems(dict[Any, Any]):
    """A ``collections.OrderedDict`` of a torch file: a dict whose attributes stay unread."""


def check_key(key: object) -> None:
    """Check that a dict key or set member is plain, so that hashing it is quick and runs no code.

    Raises:
        Refused: if it is anything but text, bytes, a number, None or a flat tuple of these. Tuples
            of tuples of tuples that share parts take exponential time to hash, and integers beyond
            2**61 quadratic time to collect, because any number of them have the same hash.
    """
    for part in key if type(key) is tuple else (key,):
        if not isinstance(part, _PLAIN_KEYS):
            raise Refused(f"uses a {type(part).__name__} inside a dict key or set")
        if isinstance(part, int) and abs(part) > _LARGEST_KEY:
            raise Refused(f"uses the integer {shown(part)} inside a dict key or set")


def built_size(value: object) -> int:
    """Return the bytes or items of a value that a builder may have copied."""
    if isinstance(value, np.ndarray):
        return 0 if value.dtype.hasobject else value.nbytes
    if isinstance(value, BytesOnDisk):
        return value.size
    if isinstance(value, (bytes, bytearray, set, frozenset, dict)):
        return len(value)
    return 0


def check_arguments(value: object) -> tuple[Any, ...]:
    """Return the operand of a call or instantiation, which has to be a tuple."""
    if type(value) is not tuple:
        raise Refused(f"calls something with a {type(value).__name__} for arguments")
    return value


def described(value: object) -> str:
    """Return the name of a global, or the kind of another value, for a message."""
    return value.name if isinstance(value, Global) else f"a {type(value).__name__}"


def shown(value: object) -> str:
    """Return text, bytes or a number for a message in short ASCII, and other values by kind.

    Anything deeper could take forever to print: the lists of a hostile file share their parts.
    """
    if type(value) is int:
        return ascii(value)[:_SHOWN_CHARACTERS]
    if isinstance(value, (str, bytes)):
        return ascii(value[:_SHOWN_CHARACTERS])
    return f"a {type(value).__name__}"


def signed(data: bytes) -> int:
    """Return a two's complement integer of any width, low byte first."""
    return int.from_bytes(data, "little", signed=True)


def integer_line(line: bytes) -> int | bool:
    """Return a decimal integer; protocols 0 and 1 write False and True as ``00`` and ``01``."""
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def utf8(data: bytes) -> str:
    """Return text; lone surrogates, which no Arrow store could hold, are damage."""
    return data.decode("utf-8")


def latin1(data: bytes) -> str:
    """Return a Python 2 string: text or array bytes, of which Latin-1 loses neither."""
    return data.decode("latin-1")


def quoted_line(line: bytes) -> str:
    """Return the Python 2 string that a quoted literal with escapes spells."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise ValueError("a string without quotes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # unknown escapes stay as they are
        return latin1(codecs.escape_decode(line[1:-1])[0])
