"""Gram matrices on disk: one safetensors file per model, dataset and token kind.

Tensors, stacked over layers: ``centred (layer, image, image)`` float32, ``offset``, ``row_sum``
and ``diag (layer, image)`` and ``level (layer)`` float64, ``layer`` int64 (the layers' numbers),
``crc32c (layer, image)`` int64, the checksums of the rows of ``centred``. What they are of stands
in the metadata. ``sha256`` is of all that stands before ``centred``, but itself: header and small
tensors. A model that lacks the tokens may have a file of no layers.

Files of version 1, without checksums, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vitfeat.errors import AnalysisError, what_to_do
from vitfeat.files import replacing
from vitfeat.numerics.gram import Gram

FORMAT = "vitfeat-gram"
VERSION = "2"
_UNCHECKED = "1"
NOTHING = "nothing"
"""What a file of no layers is made from."""

REMEDY = "delete it and run again, so that it is made anew"
TENSORS: dict[str, tuple[str, str, int]] = {
    # Name: type in the header, type in numpy, number of image axes. The large one stands last, so
    # that the others are aligned to eight bytes whatever its size.
    "diag": ("F64", "<f8", 1),
    "offset": ("F64", "<f8", 1),
    "row_sum": ("F64", "<f8", 1),
    "level": ("F64", "<f8", 0),
    "layer": ("I64", "<i8", 0),
    "crc32c": ("I64", "<i8", 1),
    "centred": ("F32", "<f4", 2),
}
# Stands before them all.
_SHA256 = "sha256"
_SHA256_BYTES = 32


@dataclass(frozen=True)
class GramMeta:
    """What a file of Gram matrices is of."""

    model: str
    dataset: str
    tokens: str  # the token kind that was asked for: ``cls``, ``mean``, ``spatial`` or ``all``
    # Same images in the same order, same fingerprint: what two files of a pair must share.
    image_fingerprint: str
    features_fingerprint: str  # of the store that the features came from
    # The token kind that it was really made from: ``tokens`` itself, another one that stands in for
    # tokens which the model lacks, or :data:`NOTHING`. Empty, or absent from a file's metadata, it
    # is ``tokens``.
    made_from: str = ""

    def __post_init__(self) -> None:
        if not self.made_from:
            object.__setattr__(self, "made_from", self.tokens)


class GramFile:
    """A file by :func:`write_gram_file`, open for reading; the large tensor is read in blocks only.

    Vectors are those of :class:`~vitfeat.numerics.gram.Gram`, a row a layer.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.where = Path(path), str(path)
        if self.path.is_dir():
            raise AnalysisError(
                f"{self.path} is a folder and no Gram file: `vitfeat run gram` makes one of a store"
            )
        try:
            self._file = _open(self.path)
            metadata = self._file.metadata() or {}
            kind = metadata.get("format"), metadata.get("version")
            if kind not in ((FORMAT, VERSION), (FORMAT, _UNCHECKED)):
                raise AnalysisError(
                    f"{self.path} is no Gram file of version {VERSION}, but {kind[0] or 'unknown'} "
                    f"version {kind[1] or 'unknown'}: {REMEDY}"
                )
            self._crc32c = None
            if kind[1] == VERSION:
                _check_small(self.path)
                self._crc32c = self._file.get_tensor("crc32c")
            # Files from before stand-ins do not say what they were made from.
            metadata = {"made_from": "", **metadata}
            self.meta = GramMeta(**{field.name: metadata[field.name] for field in fields(GramMeta)})
            self.n_images = int(metadata["n_images"])
            self.layers = tuple(int(layer) for layer in self._file.get_tensor("layer"))
            self.offset = self._vectors("offset", self.n_images)
            self.row_sum = self._vectors("row_sum", self.n_images)
            self.diag = self._vectors("diag", self.n_images)
            self.level = self._vectors("level")
            self._centred = self._file.get_slice("centred")
            self._check_shape("centred", self._centred.get_shape(), self.n_images, self.n_images)
            # The model lacks these tokens and no fallback is used, so that there is no layer.
            self.left_out = self.meta.made_from == NOTHING
            if self.left_out == bool(self.layers):
                raise ValueError(f"{len(self.layers)} layers made from {self.meta.made_from}")
        except FileNotFoundError as error:
            raise AnalysisError(f"no Gram file at {self.path}: compute it first") from error
        except OSError as error:
            raise AnalysisError(
                f"Gram file {self.path} cannot be read ({error.strerror or error}): "
                f"{what_to_do(error)}"
            ) from error
        except (SafetensorError, KeyError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> AnalysisError:
        return AnalysisError(f"Gram file {self.path} is damaged ({reason}): {REMEDY}")

    def _vectors(self, name: str, *shape: int) -> NDArray[np.float64]:
        values = np.asarray(self._file.get_tensor(name), dtype=np.float64)
        self._check_shape(name, values.shape, *shape)
        return values

    def _check_shape(self, name: str, found: Sequence[int], *shape: int) -> None:
        if tuple(found) != (len(self.layers), *shape):
            raise ValueError(f"{name} has shape {tuple(found)}")

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start:stop of every layer's centred Gram matrix, (layer, stop - start, n)."""
        return self._checked(self._centred[:, start:stop], slice(None), start)

    def gram(self, index: int) -> Gram:
        """Gram matrix of the index-th layer of the file, wholly read."""
        return Gram(
            centred=self._checked(self._centred[index : index + 1], slice(index, index + 1))[0],
            offset=self.offset[index],
            level=float(self.level[index]),
            row_sum=self.row_sum[index],
            diag=self.diag[index],
        )

    def _checked(self, read: Any, layers: slice, first: int = 0) -> NDArray[np.float32]:
        """Hold rows of some layers, from the first of some images on, against their checksums."""
        rows = np.asarray(read, dtype=np.float32)
        if self._crc32c is not None:
            expected = self._crc32c[layers, first : first + rows.shape[1]]
            if not np.array_equal(_checksums(rows), expected):
                raise self._damaged("the checksum of a row is wrong")
        return rows


def _open(path: Path) -> Any:
    # The library says of any file that it may not open that there is none.
    path.open("rb").close()
    return safe_open(path, framework="np")


def _checksums(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the CRC-32C of each row, by all dimensions but the last."""
    flat = np.ascontiguousarray(rows, TENSORS["centred"][1]).reshape(-1, rows.shape[-1])
    crcs = [google_crc32c.value(row.tobytes()) for row in flat]
    return np.array(crcs, np.int64).reshape(rows.shape[:-1])


def _check_small(path: Path) -> None:
    """Hold header and small tensors against their SHA-256."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
        file.seek(0)
        header, expected = file.read(8 + length), file.read(_SHA256_BYTES)
        small = file.read(entries["centred"]["data_offsets"][0] - _SHA256_BYTES)
    if hashlib.sha256(header + small).digest() != expected:
        raise ValueError("the checksum of its header or small tensors is wrong")


def write_gram_file(
    path: str | os.PathLike[str], layers: Sequence[int], grams: Iterable[Gram], meta: GramMeta
) -> None:
    """Write one Gram matrix per layer, in the order of ``layers``, as they come.

    Only one matrix is held at a time, so the file may be larger than the memory. It appears under
    its name when it is complete, never before.
    """
    count = len(layers)
    source = _counted(grams, count, f"{meta.model} on {meta.dataset} ({meta.tokens})")
    first = next(source)
    n = first.n_images
    small = {
        name: np.empty((count, *[n] * axes), dtype)
        for name, (_, dtype, axes) in TENSORS.items()
        if name != "centred"
    }
    small["layer"][:] = layers
    header, begins = _header(count, n, meta)
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(header)
        file.seek(begins["centred"])
        for index, gram in enumerate(chain([first], source)):
            centred = np.ascontiguousarray(gram.centred, dtype=TENSORS["centred"][1])
            file.write(centred.data)
            small["crc32c"][index] = _checksums(centred)
            for name in ("diag", "offset", "row_sum", "level"):
                small[name][index] = getattr(gram, name)
        file.seek(len(header))
        file.write(_after_header(header, small))


def write_left_out(path: str | os.PathLike[str], n_images: int, meta: GramMeta) -> None:
    """Write the file of a model that lacks the tokens: it says so, and has no layers."""
    header, _ = _header(0, n_images, replace(meta, made_from=NOTHING))
    with replacing(path) as partial:
        partial.write_bytes(header + _after_header(header, {}))


def _after_header(header: bytes, small: Mapping[str, NDArray[Any]]) -> bytes:
    """Return all that stands between the header and the matrices."""
    content = b"".join(values.tobytes() for values in small.values())
    return hashlib.sha256(header + content).digest() + content


def _counted(grams: Iterable[Gram], count: int, what: str) -> Iterator[Gram]:
    """Yield Gram matrices, insisting on their number and size."""
    n = taken = 0
    for taken, gram in enumerate(grams, 1):
        if taken > count:
            raise AnalysisError(
                f"{what}: more Gram matrices than the {count} layers; give one each"
            )
        if taken > 1 and gram.n_images != n:
            raise AnalysisError(
                f"{what}: Gram matrices of {n} and of {gram.n_images} images cannot share a file; "
                "compute all layers from the same images"
            )
        n = gram.n_images
        yield gram
    if taken < max(count, 1):
        raise AnalysisError(f"{what}: {taken} Gram matrices for {count} layers; give one each")


def _header(count: int, n: int, meta: GramMeta) -> tuple[bytes, dict[str, int]]:
    """Safetensors header, and where in the file each tensor begins.

    Written by hand because the library wants all tensors in memory at once: eight bytes of
    length, JSON with types, shapes and offsets, then the data.
    """
    info = {"format": FORMAT, "version": VERSION, "n_images": str(n), **asdict(meta)}
    entries: dict[str, Any] = {
        "__metadata__": info,
        _SHA256: {"dtype": "U8", "shape": [_SHA256_BYTES], "data_offsets": [0, _SHA256_BYTES]},
    }
    begins: dict[str, int] = {}
    end = _SHA256_BYTES
    for name, (kind, dtype, axes) in TENSORS.items():
        begins[name], end = end, end + count * n**axes * np.dtype(dtype).itemsize
        shape, offsets = [count, *[n] * axes], [begins[name], end]
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + begin for name, begin in begins.items()}
