"""Pickles of plain data, read without Python's unpickler: nothing in a file is ever called.

The instructions are carried out here, on a stack of our own. A file may hold numbers, texts, bytes,
lists, tuples and dicts, and NumPy's arrays and scalars of booleans, numbers and texts. A class or
function that it names is looked up in a table of what NumPy writes, and never imported; every other
name ends the reading.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitfeat.data.images import printable
from vitfeat.data.pickled_numpy import Kind, Maker, Mark, PickleError, Unfilled, expected, named
from vitfeat.errors import DataError
from vitfeat.text import size

MAX_BYTES = 64 * 2**20
"""Of a file: the official annotations have one or two MiB."""

MAX_STEPS = 5_000_000
"""Instructions of a file, since one of a byte can make an object of sixty."""


class _Arguments(tuple[Any, ...]):
    """A tuple that holds a mark, and so can be an argument and nothing else."""


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


class _Machine:
    """Carries out the instructions of a pickle."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._maker = Maker(len(data))

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
        filled = isinstance(found, Unfilled) and found.values is not None
        self._stack.append(found.values if filled else found)

    def list_of(self, _: Any) -> None:
        items = self.pop_mark()
        self._stack.append([_plain(item) for item in items])

    def append(self, _: Any) -> None:
        item = self._stack.pop()
        expected(self._stack[-1], list).append(_plain(item))

    def appends(self, _: Any) -> None:
        items = self.pop_mark()
        expected(self._stack[-1], list).extend(map(_plain, items))

    def tuple_of(self, items: list[Any]) -> None:
        marked = any(isinstance(item, _Arguments | Mark | Kind | Unfilled) for item in items)
        self._stack.append(_Arguments(items) if marked else tuple(items))

    def tuple_since_mark(self, _: Any) -> None:
        items = self.pop_mark()
        self.tuple_of(items)

    def tuple_1(self, _: Any) -> None:
        self.tuple_of([self._stack.pop()])

    def tuple_2(self, _: Any) -> None:
        last, first = self._stack.pop(), self._stack.pop()
        self.tuple_of([first, last])

    def tuple_3(self, _: Any) -> None:
        last, second, first = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self.tuple_of([first, second, last])

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
        found = expected(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            found[_hashable(key)] = _plain(value)

    def global_name(self, names: Any) -> None:
        module, _, name = names.partition(" ")
        self._stack.append(named(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(named(expected(module, str), expected(name, str)))

    def reduce(self, _: Any) -> None:
        arguments = expected(self._stack.pop(), tuple)
        self._stack.append(self._maker.made(self._stack.pop(), arguments))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        found = self._stack[-1]
        if isinstance(found, Kind):
            found.set_state(state)
        elif isinstance(found, Unfilled):
            found.values = self._maker.filled(state)
            self._stack[-1] = found.values
        else:
            raise PickleError("sets attributes of an object")


def _plain(value: Any) -> Any:
    if isinstance(value, _Arguments | Mark | Kind | Unfilled):
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
    "TUPLE1": _Machine.tuple_1,
    "TUPLE2": _Machine.tuple_2,
    "TUPLE3": _Machine.tuple_3,
    "DICT": _Machine.dict_of,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
