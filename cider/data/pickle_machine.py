"""A reader of the pickle language in which nothing can be called but our own builders.

A pickle is a program for a stack machine. The standard library's machine imports whatever name the
program gives and calls it; this one resolves names in a table of ``Global`` values, calls only the
builders in that table, sets attributes on nothing, and checks every length before it allocates.
It is our own loop and not a subclass of ``pickle.Unpickler``, because that one allocates what a
length claims before it looks (a memo index of 2**32 - 1 takes 64 GiB), and because the arrays that
joblib writes between two instructions need an exact position in the file. Large arrays are single
instructions, so they are read at the speed of the disk.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

from cider.data.pickle_values import (
    Global,
    InertObject,
    OrderedItems,
    Refused,
    Unbuilt,
    built_size,
    check_arguments,
    check_key,
    described,
    integer_line,
    latin1,
    quoted_line,
    signed,
    utf8,
)
from cider.errors import StoreError, UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.data.pickle_source import PickleSource

MAX_OPERATIONS = 30_000_000
"""Instructions in one pickle: at 100 bytes an object, 3 GB and half a minute at most."""
MAX_CONTAINERS = 5_000_000
"""Empty lists, dicts and sets in one pickle: one byte of file becomes up to 216 of memory."""
MAX_INTEGER_BYTES = 64

_HIGHEST_PROTOCOL = 5
# What a damaged program does to a correct machine, NumPy and torch (RuntimeError) included.
_DAMAGE = (ArithmeticError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_DAMAGED_STREAM = (lzma.LZMAError, zlib.error)


class PickleMachine:
    """Runs one pickle program.

    Args:
        source: where the program is read from, from its current position.
        resolve: gives the value for a module and a name, or raises ``Refused``.
        persistent: gives the value for a persistent id; None where no such ids may occur.
    """

    def __init__(
        self,
        source: PickleSource,
        resolve: Callable[[str, str], object],
        persistent: Callable[[object], object] | None = None,
    ) -> None:
        self._source = source
        self._resolve = resolve
        self._persistent = persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._containers = 0

    def load(self) -> object:
        """Run the program to its end and return the object it leaves.

        Raises:
            UnsafePickleError: if it asks for anything that is not allowed.
            StoreError: if it is truncated, damaged, or larger than is allowed.
        """
        path, source = self._source.path, self._source
        try:
            return self._run()
        except Refused as refusal:
            raise UnsafePickleError(
                f"{path} {refusal}, which is refused; nothing in the file was run, and it should "
                "only be used again if it comes from a source you trust and is saved without that"
            ) from None
        except MemoryError:
            raise StoreError(
                f"{path} needs more memory than is free, at byte {source.position}; use a machine "
                "with more memory"
            ) from None
        except (*_DAMAGE, *_DAMAGED_STREAM) as error:
            raise StoreError(
                f"{path} is damaged or not a pickle: what ends at byte {source.position} makes no "
                f"sense there ({type(error).__name__}); copy or download it again"
            ) from error

    def _run(self) -> object:
        take, handlers = self._source.take, self._table()
        for _ in range(MAX_OPERATIONS):
            operation = take(1)
            if operation == b".":
                (result,) = self._stack
                return result
            handlers[operation]()
        raise Refused(
            f"holds more than {MAX_OPERATIONS} separate Python objects (save features as arrays)"
        )

    def _table(self) -> dict[bytes, Callable[[], None]]:
        return {
            **self._scalar_table(),
            **self._container_table(),
            **self._object_table(),
            b"\x80": self._protocol,
            b"\x95": lambda: self._source.require(self._unsigned(8)),
            b"0": self._pop,
            b"1": lambda: self._pop_mark().clear(),
            b"g": lambda: self._get(int(self._source.line())),
            b"h": lambda: self._get(self._unsigned(1)),
            b"j": lambda: self._get(self._unsigned(4)),
            b"p": lambda: self._put(int(self._source.line())),
            b"q": lambda: self._put(self._unsigned(1)),
            b"r": lambda: self._put(self._unsigned(4)),
            b"\x94": lambda: self._put(len(self._memo)),
        }

    # Numbers, text and bytes.

    def _scalar_table(self) -> dict[bytes, Callable[[], None]]:
        source, counted = self._source, self._counted
        return {
            b"N": lambda: self._push(None),
            b"\x88": lambda: self._push(True),
            b"\x89": lambda: self._push(False),
            b"I": lambda: self._push(integer_line(source.line())),
            b"L": lambda: self._push(int(source.line().rstrip(b"L"))),
            b"F": lambda: self._push(float(source.line())),
            b"J": lambda: self._push(signed(source.take(4))),
            b"K": lambda: self._push(self._unsigned(1)),
            b"M": lambda: self._push(self._unsigned(2)),
            b"G": lambda: self._push(struct.unpack(">d", source.take(8))[0]),
            b"\x8a": lambda: self._long(self._unsigned(1)),
            b"\x8b": lambda: self._long(self._unsigned(4)),
            b"S": lambda: self._push(quoted_line(source.line())),
            b"V": lambda: self._push(source.line().decode("raw-unicode-escape")),
            b"U": partial(counted, 1, latin1),
            b"T": partial(self._bytes, 4, lambda size: latin1(source.take(size))),
            b"\x8c": partial(counted, 1, utf8),
            b"X": self._text,
            b"\x8d": partial(counted, 8, utf8),
            b"C": partial(self._bytes, 1, source.take),
            b"B": partial(self._bytes, 4, source.take),
            b"\x8e": partial(self._bytes, 8, source.take),
            b"\x96": partial(self._bytes, 8, source.take_mutable),
        }

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _unsigned(self, width: int) -> int:
        return int.from_bytes(self._source.take(width), "little")

    def _counted(self, width: int, decode: Callable[[bytes], str]) -> None:
        self._stack.append(decode(self._source.take(self._unsigned(width))))

    def _bytes(self, width: int, take: Callable[[int], bytes | bytearray | str]) -> None:
        size = self._unsigned(width)
        self._stack.append(self._source.pass_over(size) or take(size))

    def _text(self) -> None:
        size = self._unsigned(4)
        # An empty text is false too, but never passed over.
        self._stack.append(self._source.pass_over_text(size) or utf8(self._source.take(size)))

    def _long(self, size: int) -> None:
        if size > MAX_INTEGER_BYTES:
            raise Refused(f"holds an integer of {size} bytes, more than {MAX_INTEGER_BYTES}")
        self._stack.append(signed(self._source.take(size)))

    def _protocol(self) -> None:
        protocol = self._unsigned(1)
        if protocol > _HIGHEST_PROTOCOL:
            raise Refused(f"is written in pickle protocol {protocol}, above {_HIGHEST_PROTOCOL}")

    # Containers, the stack and the memo.

    def _container_table(self) -> dict[bytes, Callable[[], None]]:
        return {
            b"(": self._mark,
            b")": lambda: self._push(()),
            b"t": lambda: self._push(tuple(self._pop_mark())),
            b"\x85": partial(self._tuple, 1),
            b"\x86": partial(self._tuple, 2),
            b"\x87": partial(self._tuple, 3),
            b"]": lambda: self._container([]),
            b"}": lambda: self._container({}),
            b"\x8f": lambda: self._container(set()),
            b"l": lambda: self._container(self._pop_mark()),
            b"d": lambda: self._container(self._pairs(self._pop_mark())),
            b"\x91": lambda: self._container(frozenset(self._members(self._pop_mark()))),
            b"a": lambda: self._extend([self._pop()]),
            b"e": lambda: self._extend(self._pop_mark()),
            b"s": self._set_item,
            b"u": lambda: self._update(self._pop_mark()),
            b"\x90": self._add_members,
        }

    def _pop(self) -> Any:  # noqa: ANN401 - an operand, checked by whoever uses it
        return self._stack.pop()

    def _mark(self) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _tuple(self, size: int) -> None:
        # Fewer operands than the tuple needs would slice short, and are damage.
        self._stack[-size:] = [tuple(self._stack[-size + index] for index in range(size))]

    def _container(self, value: object) -> None:
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise Refused(f"holds more than {MAX_CONTAINERS} lists, dicts and sets")
        self._stack.append(value)

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise Refused(f"appends to a {type(target).__name__}")
        target.extend(items)

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise Refused(f"sets items of a {type(target).__name__}")
        target.update(self._pairs(items))

    def _add_members(self) -> None:
        members = self._members(self._pop_mark())
        target = self._stack[-1]
        if type(target) is not set:
            raise Refused(f"adds members to a {type(target).__name__}")
        target.update(members)

    def _pairs(self, items: list[Any]) -> dict[Any, Any]:
        keys = self._members(items[::2])
        return dict(zip(keys, items[1::2], strict=True))

    def _members(self, items: list[Any]) -> list[Any]:
        for item in items:
            if type(item) is not str:
                check_key(item)
        return items

    def _get(self, index: int) -> None:
        value = self._memo[index]
        if type(value) is Unbuilt:
            if not value.done:
                raise Refused(f"refers to a {value.name} before its content")
            value = value.value
        self._stack.append(value)

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    # Names, calls, instances and state: the part that makes ordinary unpickling dangerous.

    def _object_table(self) -> dict[bytes, Callable[[], None]]:
        return {
            b"c": self._global_lines,
            b"\x93": self._global_stack,
            b"R": self._reduce,
            b"\x81": self._instantiate,
            b"b": self._build,
            b"i": self._old_instance,
            b"o": self._old_object,
            b"\x92": self._keyword_instance,
            b"Q": self._persistent_id,
            b"P": partial(self._refuse, "uses a persistent id in text form"),
            b"\x82": partial(self._refuse, "uses the extension registry (EXT1)"),
            b"\x83": partial(self._refuse, "uses the extension registry (EXT2)"),
            b"\x84": partial(self._refuse, "uses the extension registry (EXT4)"),
            b"\x97": partial(self._refuse, "uses a buffer stored outside it (NEXT_BUFFER)"),
            b"\x98": partial(self._refuse, "uses a buffer stored outside it (READONLY_BUFFER)"),
        }

    def _refuse(self, phrase: str) -> None:
        raise Refused(phrase)

    def _global_lines(self) -> None:
        module, name = self._source.line().decode("utf-8"), self._source.line().decode("utf-8")
        self._global(module, name)

    def _global_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Refused("builds the name of a class from something that is not text")
        self._global(module, name)

    def _global(self, module: str, name: str) -> None:
        # Any text file that begins with "i" or "c" gets here, and names no class.
        if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
            raise ValueError("not the name of a class")
        self._stack.append(self._resolve(module, name))

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Global or function.call is None:
            raise Refused(f"calls {described(function)}")
        self._stack.append(self._charged(function.call(check_arguments(arguments))))

    def _instantiate(self) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if type(kind) is not Global or kind.create is None:
            raise Refused(f"makes an instance of {described(kind)}")
        self._stack.append(kind.create(check_arguments(arguments)))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is InertObject:
            target.state = state
        elif type(target) is OrderedItems:
            return  # attributes of a state dict, such as the versions of its modules
        elif type(target) is Unbuilt and not target.done:
            target.value = self._charged(target.complete(state, self._source))
            target.done = True
            self._stack[-1] = target.value
        else:
            raise Refused(f"sets the state of {described(target)}")

    def _charged(self, value: object) -> object:
        if not self._source.allows_building(built_size(value)):
            raise Refused("builds more out of its bytes than there are")
        return value

    def _old_instance(self) -> None:
        self._global_lines()
        raise Refused(f"makes an instance of {described(self._stack.pop())} (INST)")

    def _old_object(self) -> None:
        raise Refused(f"makes an instance of {described(self._pop_mark()[0])} (OBJ)")

    def _keyword_instance(self) -> None:
        raise Refused(f"makes an instance of {described(self._stack[-3])} (NEWOBJ_EX)")

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise Refused("uses a persistent id")
        self._stack.append(self._persistent(self._stack.pop()))
