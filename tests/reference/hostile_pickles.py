"""Pickles that do what no feature file should, and the check that they are refused in a sentence.

Written by the real pickle from objects that say how they want to be rebuilt.
"""

import numpy as np
import pytest

from cider.data.safe_pickle import read_pickle
from cider.errors import UnsafePickleError

CODECS = [0, 3, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)]
"""What ``joblib.dump`` takes for ``compress``: none, its default, and every codec."""


class Call:
    """Pickles as a call of ``function`` with ``arguments``, optionally with a state."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


RECONSTRUCT = np.zeros(0).__reduce__()[0]


def array_call(*, kind=np.ndarray, start=(0,), code=b"b", state):
    """The call that rebuilds an array, with any part replaced."""
    return Call(RECONSTRUCT, kind, start, code, state=state)


def nested_twice(make, depth):
    """Containers that each hold the next one twice: small to store, 2**depth to walk."""
    value = make(())
    for _ in range(depth):
        value = make((value, value))
    return value


def honest_content():
    """A dict of everything that a feature file may hold."""
    return {
        "train": {
            "audio": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
            "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
            "view": np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
            "large": np.arange(20_000, dtype=np.int64),
            "raw_text": np.array(["hello", "h\u00e9llo\n", "", None, 3, 2.5], dtype=object),
            "id": np.array(["video$_$1", "video$_$2"]),
            "code": np.array([b"ab", b"c"]),
            "empty": np.zeros((0, 5), np.float32),
            "scalar": np.array(3.5),
            "flags": np.array([True, False]),
            "lengths": [1, 2, 255, 256, 70_000, -3, 10**12, -(2**70)],
        },
        "count": np.int64(7),
        "rate": np.float32(0.5),
        "name": np.str_("n\u00e4me"),
        "type": np.dtype("float32"),
        "set": {1, "a", (2, "b")},
        "frozen": frozenset({1}),
        "plain": (1, 2.5, float("inf"), True, False, None, "\\ \u20ac\n'", b"\x00\xff\n", b"", ()),
        "mutable": bytearray(b"xyz"),
        (1, 2): "tuple key",
        np.int64(9): "numpy key",
        None: "no key",
    }


def refused(path, error=UnsafePickleError, *, read=read_pickle):
    """Read a file that has to fail, and return the one sentence that says why."""
    with pytest.raises(error) as caught:
        read(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert ". " not in sentence
    return sentence
