"""Reading a weight file of any published kind, such that a file can never run code.

Five kinds, told by their content and never by their name: safetensors; NumPy's ``.npz`` (Google's
ViTs); both formats of ``torch.save``; TorchScript archives (OpenAI's CLIP). Pickles are read by two
restricted unpicklers alone, of :mod:`vitfeat.weights.torchsave` and
:mod:`vitfeat.weights.torchscript`. Beside the weights themselves a file takes at most 2 GB of
memory to read: what it says in few bytes is bounded before it is read.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from vitfeat.errors import ModelError
from vitfeat.text import size, some
from vitfeat.weights.torchsave import (
    MAX_NAMES,
    SAVE_AGAIN,
    UnreadableError,
    check_pickles,
    load_saved,
    refuse_pickle,
)
from vitfeat.weights.torchscript import mappable_offset, read_torchscript

# What files begin with that are taken for weights and hold none that vitfeat reads.
_OTHER_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file it stands for by git lfs pull",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ\0": "compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it first",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "a single NumPy array, without names of weights",
}
_TAR = slice(257, 262), b"ustar"

# What a file of torch.save's old format begins with; its second byte is the pickle's protocol.
_LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)

# A longer header is none: safetensors itself reads no more.
_LONGEST_SAFETENSORS_HEADER = 100_000_000

# Into how many times its bytes an archive may unpack: weights, which are mostly noise, do not
# shrink to a twentieth. Small ones, which may be zeros, unpack into so many bytes at least.
_MOST_UNPACKED = 20
_UNPACKED = 256 * 2**20

# Of members; Python takes a kilobyte for each.
_MOST_MEMBERS = 100_000


def read_weight_file(path: Path) -> Any:
    """Read a weight file onto the CPU, whatever its name.

    Of safetensors and npz files, and of TorchScript archives, a flat ``dict`` of name to tensor is
    returned. Of files of ``torch.save`` what was saved: as a rule nested mappings, with lists,
    numbers, texts, ``argparse.Namespace``, NumPy scalars and pure paths beside tensors. Tensors
    have the type and the strides that the file says; the memory of many is the mapped file, so it
    must not change while they are used.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there" if not path.exists() else None
        raise ModelError(f"{path} {what or 'is no regular file'}: name one weight file")
    try:
        return _reader(path)(path)
    except ModelError:
        raise
    except UnreadableError as error:
        raise _unreadable(path, f"it is {error}") from error
    except Exception as error:  # what reads a damaged file trusts its bytes: anything may be raised
        raise _unreadable(
            path, f"it is truncated, damaged or of another kind ({_reason(error)})"
        ) from error


def _reader(path: Path) -> Callable[[Path], Any]:
    """Tell the file's kind by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise _unreadable(path, f"it cannot be opened ({error.strerror})") from error
    if not head:
        raise _unreadable(path, "it is empty")
    if head.startswith(b"PK\x03\x04"):
        return _read_zip
    header_length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header_length <= _LONGEST_SAFETENSORS_HEADER:
        return _read_safetensors
    if head.startswith(pickle.PROTO):
        return _read_legacy if head[2 : len(_LEGACY)] == _LEGACY[2:] else refuse_pickle
    raise _unreadable(path, f"it is {_other_kind(head)}")


def _other_kind(head: bytes) -> str:
    """Say what a file is that is none of the kinds that vitfeat reads."""
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic):
            return kind
    where, magic = _TAR
    if head[where] == magic:
        return "a tar archive: unpack it first"
    if not any(head):
        return "zeros at its beginning, like an unfinished download"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page: the download gave that instead of the weights"
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) > len(head) - 4 and all(c.isprintable() or c.isspace() for c in text):
        return "a text"
    return "truncated, damaged, or none of safetensors, npz, torch.save's and torch.jit.save's"


def _unreadable(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} is not a readable weight file: {reason}")


def _reason(error: Exception) -> str:
    """Return a library's own words, without PyTorch's advice to run what the file says."""
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", text)
        text = reason[1] if reason else text
    line = text.strip().split("\n")[0][:200]
    return type(error).__name__ if not line or "weights_only" in line else line


# --- safetensors ---


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_NAMES:
        raise UnreadableError(
            f"one with {size(length)} of names of tensors, and {size(MAX_NAMES)} are read"
        )
    state: dict[str, Tensor] = load_file(path)
    return state


# --- zip archives: npz, TorchScript, torch.save ---


def _read_zip(path: Path) -> Any:
    with path.open("rb") as file, _whole(file) as archive:
        names = archive.namelist()
        folders = [name.split("/")[0] for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(folders) == 1:
            # PyTorch's own mark of a TorchScript archive.
            if f"{folders[0]}/constants.pkl" in names:
                return read_torchscript(path, archive, folders[0])
            return _read_saved(path, archive, folders[0])
    if any(name.endswith(".npy") for name in names):
        return _read_npz(path)
    held = f"it has {some(names, 3)}" if names else "empty"
    raise ModelError(
        f"{path} holds no weights that vitfeat reads: it is a zip archive with neither data.pkl of "
        f"torch.save nor arrays of NumPy ({held}); if it holds a weight file, unpack it first"
    )


def _whole(file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive whose members unpack into what weights may, and have their checksums."""
    members = (archive := zipfile.ZipFile(file)).infolist()
    if len(members) > _MOST_MEMBERS:
        raise UnreadableError(f"a zip archive of {len(members):,} files, too many for weights")
    unpacked, length = sum(m.file_size for m in members), file.seek(0, io.SEEK_END)
    if unpacked > max(_UNPACKED, _MOST_UNPACKED * length):
        raise UnreadableError(
            f"a zip archive of {size(length)} that unpacks into {size(unpacked)}, as no weights do"
        )
    for member in members:
        if member.filename.endswith("/data.pkl") and member.file_size > MAX_NAMES:
            raise UnreadableError(
                f"one with {size(member.file_size)} of names and objects beside the tensors, and "
                f"{size(MAX_NAMES)} are read; {SAVE_AGAIN}"
            )
    # PyTorch does not look at the checksums.
    if (damaged := archive.testzip()) is not None:
        raise UnreadableError(
            f"damaged: {damaged} in it is not what its checksum says; fetch it again"
        )
    return archive


def _read_npz(path: Path) -> dict[str, Tensor]:
    state = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            try:
                array = arrays[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise ModelError(
                    f"{path} holds Python objects in its array {name!r}, which vitfeat never loads "
                    "as they can run code; save it again with arrays of numbers alone"
                ) from error
            state[name] = _tensor(path, name, array)
    return state


def _tensor(path: Path, name: str, array: Any) -> Tensor:
    """Make a tensor of an array, without a copy where PyTorch has its type."""
    if isinstance(array, np.ndarray):
        # NumPy has no bfloat16: the files of Google's that hold them say "two bytes".
        if array.dtype.str == "|V2" and array.dtype.names is None:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        if array.dtype.kind in "biufc":
            native = array.astype(array.dtype.newbyteorder("="), copy=False)
            try:
                return torch.from_numpy(native)
            except TypeError:  # long double
                pass
    found = f"of the type {array.dtype}" if isinstance(array, np.ndarray) else "no array"
    raise ModelError(
        f"{path} holds {name!r}, which is {found} and cannot be a tensor; save it again with "
        "arrays of numbers alone"
    )


# --- torch.save ---


def _read_saved(path: Path, archive: zipfile.ZipFile, folder: str) -> Any:
    """Read what torch.save wrote in its zip format."""
    storages = [m for m in archive.infolist() if m.filename.startswith(f"{folder}/data/")]

    def pickled() -> IO[bytes]:
        return archive.open(f"{folder}/data.pkl")

    with path.open("rb") as file:
        mapped = all(mappable_offset(file, m) is not None for m in storages)
        # PyTorch maps a file by its path alone, and believes the path's suffix before the content.
        if mapped and not path.name.endswith(".safetensors"):
            return load_saved(path, str(path), pickled, mmap=True)
        file.seek(0)
        return load_saved(path, file, pickled)


def _read_legacy(path: Path) -> Any:
    """Read what torch.save wrote in its format of before PyTorch 1.6."""
    with path.open("rb") as file:
        check_pickles(file)
        file.seek(0)
        return load_saved(path, file, lambda: path.open("rb"))
