"""Parameters and buffers of a TorchScript archive, read without running what is in it.

``torch.jit.load`` builds the module by the code of the archive. The weights need none of it: they
are the storages ``data/*`` of a zip archive, and ``data.pkl`` says which tensor of which module
each belongs to. That pickle is read here by an unpickler that knows a handful of names, and turns
each into an object that does nothing; tensors are made afterwards, from checked numbers.

Layout of the archive: ``torch/csrc/jit/serialization`` of PyTorch.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from vitfeat.errors import ModelError
from vitfeat.weights.torchsave import UnreadableError, refuse_objects

_DTYPES = {
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}

# PyTorch's largest element: storages that start at a multiple of it can be used where they lie.
_ALIGNMENT = 16

_LOCAL_HEADER = struct.Struct("<26xHH")


def mappable_offset(file: BinaryIO, member: zipfile.ZipInfo) -> int | None:
    """Where a member's bytes lie in an archive, from its start, if tensors can use them there.

    ``None`` when the member is compressed, encrypted or not aligned: it must be read into memory.
    """
    file.seek(member.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = member.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)
    stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
    return offset if stored and offset % _ALIGNMENT == 0 else None


def read_torchscript(path: Path, archive: zipfile.ZipFile, folder: str) -> dict[str, Tensor]:
    """Read the parameters and buffers of a module that ``torch.jit.save`` wrote.

    They stand below a folder of the archive, ``"model"`` for ``model/data.pkl``, and are returned
    by their dotted paths, ``"visual.conv1.weight"``. Tensors that share memory in the module share
    it here; the memory is the mapped file. A damaged pickle or archive raises whatever its reader
    does.
    """
    order = f"{folder}/byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ModelError(
            f"{path} is a TorchScript archive of a big-endian machine, which vitfeat does not "
            "read; save its state dict: torch.save(model.state_dict(), ...)"
        )
    root = _Unpickler(path, archive.read(f"{folder}/data.pkl")).load()
    storages = _Storages(path, archive, folder)
    declared = _Declarations(archive, folder)
    state = {name: storages.tensor(value) for name, value in _walk(root, "", declared)}
    if not state:
        raise ModelError(
            f"{path} holds no parameters or buffers (a frozen TorchScript module keeps them among "
            "the constants of its code); save the module as it was before torch.jit.freeze"
        )
    return state


class _Inert:
    """What a name in the pickle becomes: it keeps what it is given, and does nothing.

    Every kind has a ``__setstate__``: without one, the BUILD instruction would set attributes of
    whatever lies on the stack, the class itself included.
    """

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Object(_Inert):
    """An object of a class of the archive; `state` maps its attributes' names to values."""

    __slots__ = ()
    class_name = ""


class _Tensor(_Inert):
    """A call of ``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ()


class _Parameter(_Inert):
    """A call of ``torch._utils._rebuild_parameter``."""

    __slots__ = ()


class _Storage(NamedTuple):
    """A reference to the elements of tensors."""

    dtype: torch.dtype
    key: str
    length: int


_ADMITTED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    # Of hooks, which are always none.
    ("collections", "OrderedDict"): _Inert,
    # Attributes that are lists or dictionaries; neither parameters nor buffers.
    **{
        ("torch.jit._pickle", name): _Inert
        for name in (
            "build_boollist",
            "build_doublelist",
            "build_intlist",
            "build_tensorlist",
            "restore_type_tag",
        )
    },
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


# The pickle instructions that TorchScript writes. Others are refused unread: some of them make
# Python's unpickler take as much memory as a damaged number says.
_INSTRUCTIONS = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID",
    "BINPUT", "BINUNICODE", "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1",
    "LONG_BINGET", "LONG_BINPUT", "MARK", "NEWFALSE", "NEWOBJ", "NEWTRUE", "NONE", "PROTO",
    "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Reads ``data.pkl`` into dictionaries, lists, numbers, texts and :class:`_Inert` objects."""

    def __init__(self, path: Path, data: bytes) -> None:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _INSTRUCTIONS:
                raise UnreadableError(f"damaged: an instruction {opcode.name} in data.pkl")
            if opcode.name == "LONG_BINPUT" and (argument or 0) > len(data):
                raise UnreadableError("damaged: more objects than bytes in data.pkl")
        super().__init__(io.BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name: from a fixed list, nothing is imported or looked up."""
        full_name = f"{module}.{name}"
        if module == "__torch__" or module.startswith("__torch__."):
            return type("_Object", (_Object,), {"__slots__": (), "class_name": full_name})
        if (module, name) not in _ADMITTED:
            refuse_objects(self._path, [full_name])
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the reference to a storage."""
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(length)) if length >= 0:
                return _Storage(dtype, key, length)
        raise UnreadableError("damaged: a storage that is not described as one")


class _Declarations:
    """Which attributes of a class are parameters or buffers, as the archive's code declares."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._source = cache(self._read)

    def of(self, class_name: str) -> set[str] | None:
        """Names of a class's parameters and buffers, or ``None`` where the code does not say.

        The code is searched as a text. Archives of before PyTorch 1.6 do not tell buffers from
        other tensors.
        """
        module, _, name = class_name.rpartition(".")
        declared = re.search(
            rf"^class {re.escape(name)}\(Module\):\n"
            r"  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]$",
            self._source(f"{self._folder}/code/{module.replace('.', '/')}.py"),
            re.MULTILINE,
        )
        return set(re.findall(r'"([^"]*)"', declared[1] + declared[2])) if declared else None

    def _read(self, member: str) -> str:
        there = member in self._archive.namelist()
        return self._archive.read(member).decode() if there else ""


def _walk(value: Any, prefix: str, declared: _Declarations) -> Iterator[tuple[str, _Inert]]:
    """Yield the dotted path and the description of every parameter and buffer below an object."""
    state = getattr(value, "state", None)
    if not isinstance(value, _Object) or not isinstance(state, dict):
        return
    names = declared.of(value.class_name)
    for name, attribute in state.items():
        if isinstance(attribute, _Object):
            yield from _walk(attribute, f"{prefix}{name}.", declared)
        elif isinstance(attribute, _Tensor | _Parameter) and (names is None or name in names):
            yield f"{prefix}{name}", attribute


class _Storages:
    """The storages of an archive, mapped where they can be."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._members = {member.filename: member for member in archive.infolist()}
        # Private pages: who writes into a tensor does not write into the file.
        self._file: Any = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
        self._path = path
        self._read: dict[str, Any] = {}

    def tensor(self, description: _Inert) -> Tensor:
        """Make a tensor from its description, every number of which the file could have made up."""
        arguments = description.arguments
        if isinstance(description, _Parameter):
            data, *_ = arguments
            if not isinstance(data, _Tensor):
                raise UnreadableError("damaged: a parameter without a tensor")
            return self.tensor(data)
        storage, offset, size, stride, _, _, *more = arguments
        if any(more):
            raise UnreadableError("damaged: a tensor that is conjugated or negated")
        numbers = (offset, *size, *stride)
        if (
            not isinstance(storage, _Storage)
            or len(size) != len(stride)
            or any(type(number) is not int or number < 0 for number in numbers)
        ):
            raise UnreadableError("damaged: a tensor that is not described as one")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        elements = self._elements(storage)
        if 0 not in size and (last + 1) * storage.dtype.itemsize > elements.nbytes():
            raise UnreadableError(
                f"damaged: a tensor that reaches over the end of its storage {storage.key}"
            )
        return torch.empty(0, dtype=storage.dtype).set_(elements, offset, size, stride)

    def _elements(self, storage: _Storage) -> Any:
        member = self._members.get(f"{self._folder}/data/{storage.key}")
        if member is None:
            raise UnreadableError(f"damaged: no storage {storage.key}")
        if storage.length * storage.dtype.itemsize > member.file_size:
            raise UnreadableError(f"damaged: storage {storage.key} is shorter than data.pkl says")
        # Tensors of one storage share it: tied weights stay tied.
        if storage.key not in self._read:
            self._read[storage.key] = self._bytes(member)
        return self._read[storage.key]

    def _bytes(self, member: zipfile.ZipInfo) -> Any:
        with self._path.open("rb") as file:
            offset = mappable_offset(file, member)
        if offset is not None:
            return self._file[offset : offset + member.file_size]
        data = bytearray(self._archive.read(member))
        elements = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0)
        return elements.untyped_storage()
