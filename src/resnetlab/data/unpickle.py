"""Pickles of named arrays from files that nobody vouches for, read without running anything in them.

A pickle is a program for a stack machine: it may name any function and call it. Here it meets four names, each answered
by a stand-in of this file, so not even numpy is called; and before it runs at all, its instructions are looked through
for those that the files of CIFAR do not need, or that take memory out of proportion to the file.
Source: Python's pickletools, and PEP 307 for protocol 2.
"""

import pickle
import pickletools
from collections.abc import Callable
from io import BytesIO
from math import prod
from typing import Any

import numpy as np

from resnetlab.core.errors import DataError, first_line

# fmt: off
PLAIN = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "NONE",
    "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINSTRING", "SHORT_BINSTRING",
    "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "SETITEM", "SETITEMS",
))
# fmt: on
TUPLES = frozenset(("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"))
CALLS = frozenset(("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"))
MOST_RARE = 20
"""An array takes ten of TUPLES and CALLS. Without a limit, 64 tuples in tuples take 2⁶⁴ steps to hash."""
MOST_DIMENSIONS = 4


def unpickle_arrays(content: bytes, origin: str) -> dict[str, Any]:
    """The values of a pickled dictionary by name: arrays of uint8, and lists, numbers and texts (bytes) as they are.

    Raises ``DataError`` for a pickle that holds, or wants to run, anything else.
    """
    try:
        _look_through(content)
        value = _Reader(BytesIO(content), encoding="bytes").load()
        return {_as_text(key): _as_value(item) for key, item in value.items()}
    except Exception as error:
        # A hostile pickle can raise anything on its way; every fault of the file is the one answer below.
        raise DataError(
            f"{origin} was refused: it is damaged, or holds more than named arrays and lists ({first_line(error)}). "
            "Nothing in it was run. Fetch it again from its source"
        ) from error


def _look_through(content: bytes) -> None:
    """Raise unless every instruction is allowed, and every memo number is one that a file of this length can need."""
    rare = {"TUPLES": 0, "CALLS": 0}
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in TUPLES:
            rare["TUPLES"] += 1
        elif opcode.name in CALLS:
            rare["CALLS"] += 1
        elif opcode.name not in PLAIN:
            raise pickle.UnpicklingError(f"the instruction {opcode.name}")
        if opcode.name == "LONG_BINPUT" and argument and argument > len(content):
            raise pickle.UnpicklingError(f"memo number {argument}")
    if max(rare.values()) > MOST_RARE:
        raise pickle.UnpicklingError(f"more than {MOST_RARE} tuples or calls")


class _Reader(pickle.Unpickler):
    """Knows the four names below and no other."""

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _NAMES.get((module, name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return _Callable(stand_in)


class _Callable:
    """A stand-in that can be called and not changed: BUILD on a bare function would write into its attributes."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function with a state")


class _Bytes:
    """Stands for ``numpy.dtype``: that of unsigned bytes alone."""

    __slots__ = ()

    def __init__(self, code: Any, *_: Any) -> None:
        if _as_text(code) not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"an array of {_as_text(code)}, not of unsigned bytes")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which a byte has none of."""


class _Array:
    """Stands for an array: its state is checked, then looked at through ``np.frombuffer``, which allocates nothing."""

    __slots__ = ("shape", "turned", "values")

    def __init__(self, *_: Any) -> None:
        self.shape, self.turned, self.values = (), False, b""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, turned, values = state
        plain = len(shape) <= MOST_DIMENSIONS and all(type(length) is int for length in shape)
        if not (plain and isinstance(kind, _Bytes) and isinstance(values, bytes) and prod(shape) == len(values)):
            raise pickle.UnpicklingError("an array whose shape and values contradict each other")
        self.shape, self.turned, self.values = shape, turned, values

    def array(self) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """The values ``shape``, as a copy of its own. Raises where no state came: () is the shape of one value."""
        flat = np.frombuffer(self.values, dtype=np.uint8)
        return flat.reshape(self.shape, order="F" if self.turned else "C").copy(order="C")


def _encode(text: Any, encoding: Any) -> bytes:
    """Stands for ``_codecs.encode``, with which Python 3 writes bytes into protocol 2."""
    if _as_text(encoding) not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the encoding {_as_text(encoding)}")
    return _as_text(text).encode("latin1")


def _as_text(name: Any) -> str:
    """Texts alone: ``str`` of a list of lists of lists can be longer than any memory."""
    if isinstance(name, bytes):
        return name.decode("latin1")
    if isinstance(name, str):
        return name
    raise pickle.UnpicklingError(f"a {type(name).__name__} where a text belongs")


def _as_value(item: Any) -> Any:
    if isinstance(item, _Array):
        return item.array()
    if isinstance(item, list | bytes | str | int):
        return item
    raise pickle.UnpicklingError(f"a {type(item).__name__}")


def _name_ndarray(*_: Any) -> None:
    raise pickle.UnpicklingError("a call of numpy.ndarray")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _name_ndarray,
    ("numpy", "dtype"): _Bytes,
    ("_codecs", "encode"): _encode,
}
