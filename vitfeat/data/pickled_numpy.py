"""NumPy's arrays and scalars out of a pickle, made from their bytes without calling what it names.

A pickle names NumPy's own functions and gives them arguments. Here the names are marks, and what
stands for a mark with its arguments is made by code of ours, for booleans, numbers and texts alone:
NumPy's types can carry fields and objects, by which memory would be read at a file's word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.images import printable


class PickleError(Exception):
    """Why a file cannot be read; its text continues "is no pickle of plain data: it"."""


class Mark(Enum):
    """What a file may name, and what a pickle means by it."""

    ENCODE = "bytes of a text"
    BYTES = "empty bytes"
    RECONSTRUCT = "array of which the values follow"
    FROM_BUFFER = "array of bytes"
    SCALAR = "scalar"
    NDARRAY = "the class of arrays"
    DTYPE = "type"


_NAMES = {
    ("_codecs", "encode"): Mark.ENCODE,
    # How protocols before 3 write bytes that are empty.
    ("__builtin__", "bytes"): Mark.BYTES,
    ("builtins", "bytes"): Mark.BYTES,
    ("numpy", "ndarray"): Mark.NDARRAY,
    ("numpy", "dtype"): Mark.DTYPE,
    # NumPy 2 has other names for its modules.
    **{
        (f"numpy.{core}.{module}", name): mark
        for core in ("core", "_core")
        for module, name, mark in (
            ("multiarray", "_reconstruct", Mark.RECONSTRUCT),
            ("multiarray", "scalar", Mark.SCALAR),
            ("numeric", "_frombuffer", Mark.FROM_BUFFER),
        )
    },
}

# NumPy's codes of booleans, numbers and texts, with their bytes or characters.
_CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,3}")


class Unfilled:
    """A NumPy array of which the values follow in a step of its own."""

    values: NDArray[Any] | None = None


@dataclass
class Kind:
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


class Maker:
    """Makes what marks and their arguments stand for."""

    def __init__(self, n_bytes: int) -> None:
        # An honest file has its bytes copied once or twice.
        self._left = 4 * n_bytes

    def made(self, mark: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what a mark and its arguments stand for."""
        if mark is Mark.ENCODE:
            text, encoding = arguments
            if encoding not in ("latin1", "latin-1"):
                raise PickleError("turns texts to bytes as Python's pickle does not")
            return self._bytes(expected(text, str))
        if mark is Mark.BYTES and not arguments:
            return b""
        if mark is Mark.DTYPE:
            code = expected(arguments[0], str)
            if not _CODE.fullmatch(code):
                raise PickleError(f"holds NumPy values of the type {printable(code[:40])}")
            return Kind(code)
        if mark is Mark.RECONSTRUCT and arguments[0] is Mark.NDARRAY:
            return Unfilled()
        if mark is Mark.FROM_BUFFER:
            data, kind, shape, order = arguments[:4]
            if order not in ("C", "F") or any(more is not None for more in arguments[4:]):
                raise PickleError("holds a NumPy array in an unknown order")
            return self._array(data, kind, shape, order)
        if mark is Mark.SCALAR:
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
        raw = self._bytes(data) if isinstance(data, str) else expected(data, bytes, bytearray)
        dtype = expected(kind, Kind).dtype()
        sides = expected(shape, tuple)
        if len(sides) > 4 or not all(isinstance(side, int) and side >= 0 for side in sides):
            raise ValueError("a NumPy array of an impossible shape")
        return np.frombuffer(raw, dtype).reshape(sides, order="F" if order == "F" else "C")


def named(module: str, name: str) -> Mark:
    """Return the mark of a name."""
    try:
        return _NAMES[module, name]
    except KeyError:
        raise PickleError(f"names {printable(f'{module}.{name}'[:80])}") from None


def expected(value: Any, *kinds: type) -> Any:
    """Return a value that is of one of some types."""
    if not isinstance(value, kinds):
        raise ValueError(f"{type(value).__name__} where {kinds[0].__name__} must be")
    return value
