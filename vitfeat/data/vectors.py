"""Features from elsewhere: a vector an image and layer, of any model or recording, from files.

===================  ==========================================================================
``.npz``, ``.h5``    ``image_id`` (image,), and arrays (image, channel), each a layer, or one array
                     (image, layer, channel)
a folder             the same, each array a ``.npy`` file
``.npy``             one such array; ids in the column ``image_id`` of a CSV of the same name
``.parquet``         columns ``image_id`` and one of lists, with ``layer`` rows for each image and
                     layer; or a column of lists for each layer
===================  ==========================================================================

Without ids the rows are those of the dataset, in its order. What else tells of images (``label``,
``class_name``) is passed over.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.errors import DataError, VitfeatError
from vitfeat.text import plural

IDS = "image_id"
LAYER = "layer"
OTHERS = ("label", "class_name")
"""Columns and arrays of what vitfeat exports that are no features."""

_NEEDED = {".h5": ("h5py", "hdf5"), ".hdf5": ("h5py", "hdf5"), ".parquet": ("pyarrow", "parquet")}
ENDINGS = (".npz", ".npy", *_NEEDED)

# Bytes of a layer that are read at once.
_PIECE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Vectors:
    """Vectors of images, by layer.

    Attributes
    ----------
    where
        Where they are from, for messages.
    ids
        The images, in the order of the arrays; None where these follow the dataset.
    layers
        By name arrays (image, channel), which may be read a few rows at a time. Where all names are
        numbers they ascend.
    """

    where: str
    ids: Sequence[str] | None
    layers: Mapping[str, Any]

    @staticmethod
    def of(where: str, ids: Sequence[str] | None, arrays: Mapping[str, Any]) -> Vectors:
        """Check arrays: each a layer, or one of several."""
        layers: dict[str, Any] = {}
        for name, array in arrays.items():
            if array.ndim == 3 and len(arrays) > 1:
                named = ", ".join(map(printable, arrays))
                raise _error(where, f"has {named}: give one array of all layers, or one a layer")
            if array.ndim == 3:
                layers |= {str(n): _Layer(array, n) for n in range(array.shape[1])}
            else:
                layers[str(name)] = array
        if not layers:
            raise _error(where, f"holds no features beside {IDS}")
        if all(name.isdecimal() for name in layers):
            layers = {name: layers[name] for name in sorted(layers, key=int)}
        n = len(ids) if ids is not None else next(iter(layers.values())).shape[0]
        for name, array in layers.items():
            what = f"layer {printable(name)}: "
            if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
                shape = f"{array.dtype} of shape {tuple(array.shape)}"
                raise _error(where, f"{what}found {shape}; needed are numbers (image, channel)")
            if array.shape[0] != n:
                other = "ids" if ids is not None else "rows of the first layer"
                raise _error(where, f"{what}has {plural(array.shape[0], 'row')} for {n:,} {other}")
        return Vectors(where, ids, layers)

    @property
    def width(self) -> int:
        """Channels of the widest layer."""
        return max(int(array.shape[1]) for array in self.layers.values())

    @property
    def is_numbered(self) -> bool:
        """Whether layers are called by numbers."""
        return all(name.isdecimal() for name in self.layers)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        assert self.ids is not None
        rows = {image: row for row, image in enumerate(self.ids)}
        if len(rows) < len(self.ids):
            twice = next(image for row, image in enumerate(self.ids) if rows[image] != row)
            raise self.error(f"has the image {printable(twice)} twice; remove one")
        return rows

    def rows_of(self, index: Index) -> NDArray[np.int64]:
        """Return where the images of a dataset stand.

        Raises
        ------
        DataError
            One is not there, or there twice.
        """
        if self.ids is None:
            n = next(iter(self.layers.values())).shape[0]
            if n != len(index):
                raise self.error(
                    f"has {plural(n, 'row')} without ids, and the dataset "
                    f"{plural(len(index), 'image')}; say which they are by {IDS}"
                )
            return np.arange(n)
        rows = self._row_of
        if lacking := [image for image in index.image_id if image not in rows]:
            raise self.error(
                f"lacks {plural(len(lacking), 'image')} of the dataset's {len(index):,}, first "
                f"{printable(lacking[0])}; its own ids begin with {printable(self.ids[0])}: call "
                "images as the dataset's index does"
            )
        return np.array([rows[image] for image in index.image_id], dtype=np.int64)

    def read(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read some rows of a layer, float32 (row, channel).

        Raises
        ------
        DataError
            A value is no finite number.
        """
        # HDF5 reads rows in their order only.
        ascending, back = np.unique(rows, return_inverse=True)
        with np.errstate(over="ignore"):
            held = np.asarray(self.layers[name][ascending])[back]
            values: NDArray[np.float32] = held.astype(np.float32)
        if not (finite := np.isfinite(values).all(axis=1)).all():
            row = int(rows[int(np.argmin(finite))])
            image = f"row {row}" if self.ids is None else printable(self.ids[row])
            raise self.error(
                f"layer {printable(name)}: {image} has a value that is no finite float32 number; "
                "leave the image out of the dataset, or say what it should be"
            )
        return values

    def digest(self, rows: NDArray[np.int64]) -> str:
        """Return the SHA-256 of the numbers of some rows, which are all read."""
        digest = hashlib.sha256()
        for name, array in self.layers.items():
            digest.update(f"{array.shape[1]}\0".encode())
            step = max(1, _PIECE_BYTES // (4 * int(array.shape[1])))
            for start in range(0, len(rows), step):
                values = self.read(name, rows[start : start + step])
                digest.update(np.ascontiguousarray(values, "<f4").data)
        return digest.hexdigest()

    def error(self, problem: str) -> DataError:
        """Make an error about them."""
        return _error(self.where, problem)


class _Layer:
    """One layer of an array of several, of which only the rows that are asked for are read."""

    ndim = 2

    def __init__(self, array: Any, layer: int) -> None:
        self._array, self._layer = array, layer
        self.dtype = array.dtype
        self.shape = (array.shape[0], array.shape[2])

    def __getitem__(self, rows: NDArray[np.int64]) -> Any:
        return self._array[rows, self._layer]


def read_vectors(path: Path) -> Vectors:
    """Open a file or a folder of vectors.

    Raises
    ------
    DataError
        It is none.
    """
    where, kind = printable(str(path)), path.suffix.lower()
    if not path.exists():
        raise _error(where, "does not exist")
    if not path.is_dir() and kind not in ENDINGS:
        raise _error(where, f"is no file of features: read are {', '.join(ENDINGS)}, and folders")
    try:
        if path.is_dir():
            ids, arrays = _apart(_of_folder(path))
        elif kind == ".parquet":
            ids, arrays = _of_parquet(path, where)
        elif kind == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            ids, arrays = _of_csv(path.with_suffix(".csv")), {"0": array}
        else:
            ids, arrays = _apart(_of_archive(path, kind))
    except VitfeatError:
        raise
    except ModuleNotFoundError:
        module, extra = _NEEDED[kind]
        raise _error(where, f"is read by {module}: pip install 'vitfeat[{extra}]'") from None
    # Damaged files make their readers raise nearly anything.
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise _error(where, f"cannot be read ({what})") from None
    return Vectors.of(where, ids, arrays)


def _error(where: str, problem: str) -> DataError:
    return DataError(f"{where}: {problem}")


def _of_folder(path: Path) -> dict[str, Any]:
    files = sorted(path.glob("*.npy"))
    return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}


def _of_archive(path: Path, kind: str) -> dict[str, Any]:
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    import h5py

    held = h5py.File(path, "r", locking=False)
    return {name: item for name, item in held.items() if isinstance(item, h5py.Dataset)}


def _apart(arrays: dict[str, Any]) -> tuple[list[str] | None, dict[str, Any]]:
    """Return ids, and the arrays of layers."""
    given = arrays.pop(IDS, None)
    ids = None if given is None else _texts(np.asarray(given[()]).tolist())
    return ids, {name: array for name, array in arrays.items() if name not in OTHERS}


def _of_csv(path: Path) -> list[str] | None:
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return [row[IDS] for row in csv.DictReader(file)]


def _of_parquet(path: Path, where: str) -> tuple[list[str], dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    lists = [
        name
        for name in table.column_names
        if pa.types.is_list(kind := table.schema.field(name).type)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    ]
    has_layers = LAYER in table.column_names
    if IDS not in table.column_names or not lists or (has_layers and len(lists) > 1):
        raise _error(
            where,
            f"has the columns {', '.join(map(printable, table.column_names))}; needed are {IDS} "
            f"and one of lists, which is of several layers with {LAYER}; or one of lists a layer",
        )
    ids = _texts(table.column(IDS).to_pylist())
    if not has_layers:
        named = dict(zip(lists if len(lists) > 1 else ["0"], lists, strict=True))
        return ids, {n: _matrix(table.column(column), n, where) for n, column in named.items()}
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(_texts(table.column(LAYER).to_pylist())):
        rows_of.setdefault(name, []).append(row)
    layers: dict[str, Any] = {}
    first: list[str] = []
    for name, rows in rows_of.items():
        own = [ids[row] for row in rows]
        first = first or own
        if own != first:
            # Rows of another order are the same images all the same.
            place = dict(zip(own, rows, strict=True))
            if len(place) != len(rows) or place.keys() != set(first) or len(own) != len(first):
                other = sorted(place.keys() ^ set(first)) or own
                raise _error(
                    where,
                    f"layer {printable(name)}: is not of the images of the layer before it, such "
                    f"as {printable(other[0])}; every layer needs one vector of each image",
                )
            rows = [place[image] for image in first]
        layers[name] = _matrix(table.column(lists[0]).take(pa.array(rows)), name, where)
    return first, layers


def _matrix(column: Any, name: str, where: str) -> NDArray[Any]:
    """Return a column of lists as an array (row, channel)."""
    values = column.combine_chunks()
    lengths = np.unique(np.asarray(values.value_lengths().drop_null()))
    if values.null_count or len(lengths) != 1:
        found = (
            "rows without a vector"
            if values.null_count
            else (f"vectors of {lengths[0]:,} to {lengths[-1]:,} numbers")
        )
        raise _error(where, f"layer {printable(name)}: has {found}; all must be of one length")
    return np.asarray(values.flatten()).reshape(len(values), int(lengths[0]))


def _texts(values: Sequence[Any]) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]
