"""Pickles of plain data, read without Python's unpickler: nothing in a file is ever called.

The instructions are carried out here, on a stack of our own. A file may hold numbers, texts, bytes,
lists, tuples and dicts, and NumPy's arrays and scalars of booleans, numbers and texts. A class or
function that it names is looked up in a table of what NumPy writes, and never imported; every other
name ends the reading. What a name means with its arguments is made by code of ours from their
bytes: NumPy's types can carry fields and objects, by which memory would be read at a file's word.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.images import printable
from vitfeat.errors import DataError
from vitfeat.text import size

MAX_BYTES = 64 * 2**20
"""Of a file: the official annotations have one or two MiB."""

MAX_STEPS = 5_000_000
"""Instructions of a file, since one of a byte can make an object of sixty."""


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain data, of protocol 0 to 5, by Python 2 or 3 and NumPy 1 or 2.

    Returns texts, bytes, numbers, booleans, None, and lists, tuples and dicts of these; NumPy
    arrays. Keys of dicts are texts, bytes and numbers. Containers may be nested as deeply as the
    file likes, and lists and dicts may hold themselves: look at what is there step by step.
    """
    shown = printable(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{shown} has more than {size(MAX_BYTES)}, too much for annotations")
    try:
        return _Machine(data).run()
    except PickleError as error:
        raise DataError(
            f"{shown} is no pickle of plain data: it {error}; vitfeat reads numbers, texts, plain "
            "containers and NumPy arrays, and runs nothing that stands in a file; fetch it again"
        ) from None
    # Damage shows as nearly anything: an empty stack, a text that is none, a tuple too short.
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DataError(
            f"{shown} is no pickle or a damaged one ({printable(what)}); fetch it again"
        ) from None


class PickleError(Exception):
    """Why a file cannot be read; its text continues "is no pickle of plain data: it"."""


class _Mark(Enum):
    """What a file may name, and what a pickle means by it."""

    ENCODE = "bytes of a text"
    BYTES = "empty bytes"
    RECONSTRUCT = "array of which the values follow"
    FROM_BUFFER = "array of bytes"
    SCALAR = "scalar"
    NDARRAY = "the class of arrays"
    DTYPE = "type"


_NAMES = {
    ("_codecs", "encode"): _Mark.ENCODE,
    # How protocols before 3 write bytes that are empty.
    ("__builtin__", "bytes"): _Mark.BYTES,
    ("builtins", "bytes"): _Mark.BYTES,
    ("numpy", "ndarray"): _Mark.NDARRAY,
    ("numpy", "dtype"): _Mark.DTYPE,
    # NumPy 2 has other names for its modules.
    **{
        (f"numpy.{core}.{module}", name): mark
        for core in ("core", "_core")
        for module, name, mark in (
            ("multiarray", "_reconstruct", _Mark.RECONSTRUCT),
            ("multiarray", "scalar", _Mark.SCALAR),
            ("numeric", "_frombuffer", _Mark.FROM_BUFFER),
        )
    },
}

# NumPy's codes of booleans, numbers and texts, with their bytes or characters.
_CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,3}")


class _Unfilled:
    """A NumPy array of which the values follow in a step of its own."""

    values: NDArray[Any] | None = None


@dataclass
class _Kind:
    """A NumPy type: its code, and its byte order, which follows in a step of its own."""

    code: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        """Take the byte order."""
        _, order, *rest = state
        # A sub-array, names and fields follow: of types that are refused.
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
            raise PickleError("holds a NumPy type with fields")
        self.order = order

    def dtype(self) -> np.dtype[Any]:
        """Return the type."""
        return np.dtype(self.order + self.code)


class _Maker:
    """Makes what marks and their arguments stand for."""

    def __init__(self, n_bytes: int) -> None:
        # An honest file has its bytes copied once or twice.
        self._left = 4 * n_bytes

    def made(self, mark: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what a mark and its arguments stand for."""
        if mark is _Mark.ENCODE:
            text, encoding = arguments
            if encoding not in ("latin1", "latin-1"):
                raise PickleError("turns texts to bytes as Python's pickle does not")
            return self._bytes(_expected(text, str))
        if mark is _Mark.BYTES and not arguments:
            return b""
        if mark is _Mark.DTYPE:
            code = _expected(arguments[0], str)
            if not _CODE.fullmatch(code):
                raise PickleError(f"holds NumPy values of the type {printable(code[:40])}")
            return _Kind(code)
        if mark is _Mark.RECONSTRUCT and arguments[0] is _Mark.NDARRAY:
            return _Unfilled()
        if mark is _Mark.FROM_BUFFER:
            data, kind, shape, order = arguments[:4]
            if order not in ("C", "F") or any(more is not None for more in arguments[4:]):
                raise PickleError("holds a NumPy array in an unknown order")
            return self._array(data, kind, shape, order)
        if mark is _Mark.SCALAR:
            kind, data = arguments
            self._copied(len(data))
            return self._array(data, kind, (), "C").item()
        raise PickleError("calls what is no function of NumPy's arrays")

    def filled(self, state: Any) -> NDArray[Any]:
        """Return an array from the state that follows it."""
        _, shape, kind, fortran, data = state
        return self._array(data, kind, shape, "F" if fortran else "C")

    def _bytes(self, text: str) -> bytes:
        self._copied(len(text))
        return text.encode("latin-1")

    def _copied(self, n_bytes: int) -> None:
        self._left -= n_bytes
        if self._left < 0:
            raise PickleError("makes more of its bytes than it has")

    def _array(self, data: Any, kind: Any, shape: Any, order: str) -> NDArray[Any]:
        """Make an array that looks at its bytes; NumPy raises where they do not fit its shape."""
        # Python 2 wrote bytes as text.
        raw = self._bytes(data) if isinstance(data, str) else _expected(data, bytes, bytearray)
        dtype = _expected(kind, _Kind).dtype()
        sides = _expected(shape, tuple)
        if len(sides) > 4 or not all(isinstance(side, int) and side >= 0 for side in sides):
            raise ValueError("a NumPy array of an impossible shape")
        return np.frombuffer(raw, dtype).reshape(sides, order="F" if order == "F" else "C")


def _named(module: str, name: str) -> _Mark:
    """Return the mark of a name."""
    try:
        return _NAMES[module, name]
    except KeyError:
        raise PickleError(f"names {printable(f'{module}.{name}'[:80])}") from None


def _expected(value: Any, *kinds: type) -> Any:
    """Return a value that is of one of some types."""
    if not isinstance(value, kinds):
        raise ValueError(f"{type(value).__name__} where {kinds[0].__name__} must be")
    return value


class _Arguments(tuple[Any, ...]):
    """A tuple that holds a mark, and so can be an argument and nothing else."""


class _Machine:
    """Carries out the instructions of a pickle."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._maker = _Maker(len(data))

    def run(self) -> Any:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(self._data)):
            if step >= MAX_STEPS:
                raise PickleError(f"has more than {MAX_STEPS:,} instructions")
            name = opcode.name
            if name == "STOP":
                break
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in _FOR_STREAMS:
                raise PickleError(f"has the instruction {name}")
        return _plain(self._stack.pop())

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop_mark(self, _: Any = None) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.pop_mark()

    def dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, place: Any) -> None:
        self._memo[int(place)] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, place: Any) -> None:
        found = self._memo[int(place)]
        filled = isinstance(found, _Unfilled) and found.values is not None
        self._stack.append(found.values if filled else found)

    def list_of(self, _: Any) -> None:
        items = self.pop_mark()
        self._stack.append([_plain(item) for item in items])

    def append(self, _: Any) -> None:
        item = self._stack.pop()
        _expected(self._stack[-1], list).append(_plain(item))

    def appends(self, _: Any) -> None:
        items = self.pop_mark()
        _expected(self._stack[-1], list).extend(map(_plain, items))

    def tuple_of(self, items: list[Any]) -> None:
        marked = any(isinstance(item, _Arguments | _Mark | _Kind | _Unfilled) for item in items)
        self._stack.append(_Arguments(items) if marked else tuple(items))

    def tuple_since_mark(self, _: Any) -> None:
        items = self.pop_mark()
        self.tuple_of(items)

    def tuple_of_last(self, n: int) -> None:
        self.tuple_of([self._stack.pop() for _ in range(n)][::-1])

    def dict_of(self, _: Any) -> None:
        items = self.pop_mark()
        self._stack.append({})
        self._fill(items)

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill([key, value])

    def set_items(self, _: Any) -> None:
        items = self.pop_mark()
        self._fill(items)

    def _fill(self, items: list[Any]) -> None:
        found = _expected(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            found[_hashable(key)] = _plain(value)

    def global_name(self, names: Any) -> None:
        module, _, name = names.partition(" ")
        self._stack.append(_named(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_named(_expected(module, str), _expected(name, str)))

    def reduce(self, _: Any) -> None:
        arguments = _expected(self._stack.pop(), tuple)
        self._stack.append(self._maker.made(self._stack.pop(), arguments))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        found = self._stack[-1]
        if isinstance(found, _Kind):
            found.set_state(state)
        elif isinstance(found, _Unfilled):
            found.values = self._maker.filled(state)
            self._stack[-1] = found.values
        else:
            raise PickleError("sets attributes of an object")


def _plain(value: Any) -> Any:
    if isinstance(value, _Arguments | _Mark | _Kind | _Unfilled):
        raise PickleError("holds a class or function, or a NumPy array without values")
    return value


def _hashable(value: Any) -> Any:
    # Tuples would be hashed by recursion, and may be nested too deeply for it.
    if not isinstance(value, str | bytes | int | float):
        raise PickleError(f"has keys of the type {type(value).__name__}")
    return value


# Instructions that push their own argument.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}

# What they say is for readers of streams.
_FOR_STREAMS = {"PROTO", "FRAME"}

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}

_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.dup,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "LIST": _Machine.list_of,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of_last(1),
    "TUPLE2": lambda machine, _: machine.tuple_of_last(2),
    "TUPLE3": lambda machine, _: machine.tuple_of_last(3),
    "DICT": _Machine.dict_of,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
