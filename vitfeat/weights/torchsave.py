"""Files of ``torch.save``, read by PyTorch's restricted unpickler alone.

That unpickler (``weights_only=True``) knows tensors and plain containers; :data:`_ADMITTED` says
what else is let in, and why it is harmless.
"""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import IO, Any, BinaryIO, NoReturn

import numpy as np
import torch

from vitfeat.errors import ModelError
from vitfeat.text import size, some

SAVE_AGAIN = "save its state dict again: torch.save(model.state_dict(), ...)"

MAX_NAMES = 16 * 2**20
"""Bytes of what is no tensor: names, places, numbers. A byte can make an object of 64; models of
billions of parameters have one or two MiB."""

# Beside its magic number, torch.save's old format has a version, sizes, content, and keys.
_PICKLES = 5


class UnreadableError(Exception):
    """Why a file cannot be read; its text continues "is not a readable weight file: it is"."""


def refuse_objects(path: Path, names: list[str]) -> NoReturn:
    """Refuse a file for the Python objects that it holds, by full names of their classes."""
    shown = [(name if name.isprintable() else ascii(name))[:100] for name in names]
    raise ModelError(
        f"{path} holds Python objects beside tensors ({some(shown, 5)}), which vitfeat never loads "
        "as they can run code; save its state dict alone: torch.save(model.state_dict(), ...)"
    )


def refuse_pickle(path: Path) -> NoReturn:
    """Refuse a pickle that torch.save did not write, by the objects it holds if it holds any."""
    with path.open("rb") as file, _admitting():
        refused = _refused(file)
    if refused:
        refuse_objects(path, refused)
    raise UnreadableError(f"a pickle that torch.save did not write; {SAVE_AGAIN}")


def check_pickles(stream: BinaryIO) -> None:
    """Refuse a file of torch.save's old format whose pickles are larger than those of weights."""
    start = stream.tell()
    try:
        for _pickle in range(_PICKLES):
            for _opcode, _argument, position in pickletools.genops(stream):
                if (position or 0) - start > MAX_NAMES:
                    raise UnreadableError(
                        f"one with over {size(MAX_NAMES)} of names and objects beside the tensors; "
                        f"{SAVE_AGAIN}"
                    )
    except ValueError:  # what is damaged is told by who reads it
        pass


def load_saved(
    path: Path, source: str | IO[bytes], pickled: Callable[[], IO[bytes]], *, mmap: bool = False
) -> Any:
    """Read a file of torch.save by PyTorch's restricted unpickler.

    PyTorch opens `source`; `pickled` opens the pickles in it. With `mmap` tensors stay in the file
    until they are used.
    """
    with _admitting():
        try:
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError:
            with pickled() as stream:
                refused = _refused(stream)
            if refused:
                refuse_objects(path, refused)
            with pickled() as stream:
                proto, protocol = stream.read(2)
            if proto == pickle.PROTO[0] and protocol > 3:
                raise UnreadableError(
                    f"a pickle of protocol {protocol}, PyTorch's own is 2; {SAVE_AGAIN}"
                ) from None
            raise


# What old training scripts saved beside the weights. PyTorch's unpickler calls what stands here
# with whatever arguments the file gives, and sets attributes of instances of the classes here:
# everything must be harmless under both. `argparse.Namespace` is: it keeps attributes, and its
# constructor does nothing else. NumPy's own `dtype` and `scalar` are not: a file may set every
# field of a dtype, its flags and fields included, and NumPy then reads memory by them. So stand-ins
# make the scalars, from checked type codes. Paths become pure ones, which are texts and cannot
# touch a disk; functions make them, so that their attributes stay out of the file's reach.


class _NumpyType:
    """Stands for ``numpy.dtype``: a number or text of fixed size in a byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        if re.fullmatch(r"[biufcSU]\d{1,4}", code) is None:
            raise UnreadableError(f"one with a NumPy value of the type {code!r}; {SAVE_AGAIN}")
        self._code = code
        self._order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|"):
            raise UnreadableError(f"damaged: a NumPy type of the byte order {order!r}")
        self._order = order

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._order + self._code)


def _numpy_scalar(kind: _NumpyType, data: bytes) -> Any:
    """Stand for ``numpy.core.multiarray.scalar``."""
    if not isinstance(kind, _NumpyType):
        raise UnreadableError("damaged: a NumPy scalar without a type")
    (scalar,) = np.frombuffer(data, kind.dtype())
    return scalar


def _posix_path(*parts: str) -> PurePath:
    """Stand for ``pathlib.PosixPath``."""
    return PurePosixPath(*parts)


def _windows_path(*parts: str) -> PurePath:
    """Stand for ``pathlib.WindowsPath``."""
    return PureWindowsPath(*parts)


_ADMITTED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (argparse.Namespace, "argparse.Namespace"),
    (_NumpyType, "numpy.dtype"),
    # NumPy 2 has another name for the module.
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    # Python 3.13 too.
    *(
        (stand_in, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for stand_in, name in (
            (_posix_path, "PosixPath"),
            (_posix_path, "PurePosixPath"),
            (_windows_path, "WindowsPath"),
            (_windows_path, "PureWindowsPath"),
        )
    ),
]
_LOCK = threading.Lock()


@contextmanager
def _admitting() -> Iterator[None]:
    """Let PyTorch's unpickler admit what is above, and nothing that other libraries registered.

    Its list is one for the process; threads take turns, and find it as it was.
    """
    with _LOCK:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(_ADMITTED)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _refused(stream: IO[bytes]) -> list[str]:
    """Full names of the classes and functions in pickles that PyTorch's unpickler refuses."""
    # PyTorch tells the refused ones of a checkpoint of protocol 2 in its zip format only: all names
    # are put into such a one. Neither step runs an instruction of a pickle.
    names = b"".join(f"c{module}\n{name}\n".encode() for module, name in sorted(_names(stream)))
    checkpoint = io.BytesIO()
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("names/version", "3\n")
        archive.writestr("names/data.pkl", names + pickle.STOP)
    checkpoint.seek(0)
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(checkpoint))


def _names(stream: IO[bytes]) -> set[tuple[str, str]]:
    """Modules and names of all classes and functions that a file's pickles name."""
    names = set()
    texts: list[str] = []  # as they come on the stack
    memo: dict[int, str] = {}
    try:
        for _pickle in range(_PICKLES):
            memo.clear()
            for opcode, value, _position in pickletools.genops(stream):
                argument: Any = value
                kind = opcode.name
                if kind in ("GLOBAL", "INST", "STACK_GLOBAL"):
                    module, name = texts[-2:] if argument is None else argument.split(" ", 1)
                    names.add((module, name))
                elif "UNICODE" in kind:
                    texts.append(argument)
                elif kind == "MEMOIZE":
                    memo[len(memo)] = texts[-1] if texts else ""
                elif kind in ("PUT", "BINPUT", "LONG_BINPUT"):
                    memo[argument] = texts[-1] if texts else ""
                elif kind in ("GET", "BINGET", "LONG_BINGET"):
                    texts.append(memo.get(argument, ""))
    except Exception:  # the end of the pickles, or of what is whole of them
        pass
    return {(m, n) for m, n in names if f"{m}{n}".isprintable()}
