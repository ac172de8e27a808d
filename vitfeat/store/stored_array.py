"""One array of a store: indexed as NumPy's are, decoded when it is, and never read silently wrong.

Whatever is wrong with the files becomes a :class:`StoreError` here, for every reader.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from numcodecs import blosc
from numpy.typing import DTypeLike, NDArray
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore, StorePath

from vitfeat.errors import ReadError, StoreError, what_to_do
from vitfeat.store.files import Files, SizeError
from vitfeat.store.layout import shard_key
from vitfeat.store.paths import mending
from vitfeat.store.shards import (
    ABSENT,
    CRC_BYTES,
    ChunkError,
    Facts,
    checked,
    place_of_shard,
    read_tail,
    tail_bytes,
    threads,
)

if TYPE_CHECKING:
    from types import EllipsisType

Picks = NDArray[np.intp]

Index = int | slice | str | Sequence[int] | Sequence[bool] | Sequence[str] | NDArray[Any]
"""What one dimension is indexed by."""

# Entries are picked out of the run that they are in, if it is at most so many times longer.
_SPARSE = 2

_CODECS = ["bytes", "blosc", "crc32c"]

_TRY_AGAIN_REMOTE = "look after the connection, then try again"


class UnreadableError(StoreError):
    """Some of an array that is damaged; `reason` says how, in words."""

    def __init__(self, where: str, reason: str, then: str) -> None:
        super().__init__(f"{where} {reason}; {then}")
        self.reason = reason


class StoredArray:
    """One array of a store, read when it is indexed.

    Each dimension takes a number, a slice, or a list or mask of its own, as h5py's and xarray's
    do; the first takes image ids too: ``store["cls"]["cat.jpg", -1]``. Only the chunks that hold
    what is asked are decoded.

    Attributes
    ----------
    chunks, shards
        Shapes of what is decoded at once, and of what is in one file.
    description, tap
        What it holds, in words, and the tap that it belongs to; empty for coordinates.
    metadata
        What ``zarr.json`` says of it.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        metadata: Mapping[str, Any],
        entries_of: Callable[[str, str], int | Picks] | None = None,
        fingerprint: str = "",
        facts: NDArray[np.int64] | None = None,
    ) -> None:
        self.path = files.place
        self.name = name
        self.dims: tuple[str, ...] = tuple(metadata["dimension_names"])
        self.shape: tuple[int, ...] = tuple(metadata["shape"])
        kind = metadata["data_type"]
        self.dtype: np.dtype[Any] = np.dtype("T" if kind == "string" else kind)
        self.shards: tuple[int, ...] = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        sharding = metadata["codecs"][0].get("configuration", {})
        self.chunks: tuple[int, ...] = tuple(sharding.get("chunk_shape", self.shards))
        self.description = str(metadata["attributes"].get("description", ""))
        self.tap = str(metadata["attributes"].get("tap", ""))
        self._files = files
        self._separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
        self.metadata = metadata
        self._entries_of = entries_of
        self._fingerprint = fingerprint
        self._facts = facts
        self._is_sharded = metadata["codecs"][0]["name"] == "sharding_indexed"
        if self._is_sharded:
            names = [codec["name"] for codec in sharding["codecs"]]
            if names != _CODECS or sharding.get("index_location", "end") != "end":
                raise ValueError(f"codecs {', '.join(names)} are not those of a store")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{d} {n}" for d, n in zip(self.dims, self.shape, strict=True))
        return f"<StoredArray {self.name}: {self.dtype} ({sizes}) of {self.path}>"

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements, uncompressed."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.name} is on disk: reading it makes an array")
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, index: Index | EllipsisType | tuple[Index | EllipsisType, ...]) -> Any:
        """Read some of the array.

        Raises
        ------
        IndexError
            It has no such place.
        StoreError
            There is no such image, or a file is damaged or missing.
        """
        return self._read(self._resolve(index))

    def _resolve(self, index: Any) -> list[int | slice | Picks]:
        """Return what each dimension is indexed by: a number, a run, or numbers in any order."""
        given = list(index) if isinstance(index, tuple) else [index]
        gaps = [place for place, asked in enumerate(given) if asked is Ellipsis]
        if len(gaps) > 1:
            raise IndexError(f"{self.name}: more than one ellipsis")
        for place in gaps:
            given[place : place + 1] = [slice(None)] * (self.ndim - len(given) + 1)
        if len(given) > self.ndim:
            raise IndexError(f"{self.name}: {len(given)} indices for {', '.join(self.dims)}")
        given += [slice(None)] * (self.ndim - len(given))
        return [self._along(axis, asked) for axis, asked in enumerate(given)]

    def _along(self, axis: int, asked: Any) -> int | slice | Picks:
        n = self.shape[axis]
        if isinstance(asked, slice):
            start, stop, step = asked.indices(n)
            if step == 1:
                return slice(start, max(start, stop))
            return np.arange(start, stop, step)
        if isinstance(asked, np.ndarray) and asked.dtype.kind in "UTO":
            asked = asked.tolist()
        if isinstance(asked, str):
            return self._named(axis, asked)
        if isinstance(asked, list | tuple) and asked and all(isinstance(a, str) for a in asked):
            return np.concatenate([np.atleast_1d(self._named(axis, name)) for name in asked])
        picks = np.asarray(asked)
        where = f"{self.name}: dimension {self.dims[axis]}"
        if picks.dtype == bool and picks.ndim == 1:
            if len(picks) != n:
                raise IndexError(f"{where} has {n} entries, the mask {len(picks)}")
            return np.flatnonzero(picks)
        if picks.ndim > 1 or (picks.size and picks.dtype.kind not in "iu"):
            raise IndexError(f"{where} takes a number, a slice, or a list or mask of its own")
        if picks.size and not (picks.min() >= -n and picks.max() < n):
            raise IndexError(f"{where} has {n} entries: no {asked}")
        picks = np.asarray(picks, dtype=np.intp)
        return operator.index(picks.item()) % n if picks.ndim == 0 else picks % max(n, 1)

    def _named(self, axis: int, image: str) -> int | Picks:
        if axis or self._entries_of is None:
            raise IndexError(
                f"{self.name}: dimension {self.dims[axis]} has no entry by name; numbers and "
                "slices choose, or store.sel(image=..., layer=...)"
            )
        return self._entries_of(self.name, image)

    def _read(self, index: list[int | slice | Picks]) -> Any:
        """Read runs, and pick out of them what is asked."""
        for axis, picks in enumerate(index):
            if not isinstance(picks, np.ndarray):
                continue
            if not len(picks):
                index[axis] = slice(0, 0)
                return self._read(index)
            unique, back = np.unique(picks, return_inverse=True)
            place = axis - sum(isinstance(before, int) for before in index[:axis])
            pieces = []
            for run in _runs(unique, self.chunks[axis]):
                first, last = int(run[0]), int(run[-1]) + 1
                piece = self._read([*index[:axis], slice(first, last), *index[axis + 1 :]])
                whole = last - first == len(run)
                pieces.append(piece if whole else piece.take(run - first, axis=place))
            values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=place)
            in_order = len(unique) == len(picks) and bool((np.diff(back) == 1).all())
            return values if in_order else values.take(back, axis=place)
        return self._decode(cast("list[int | slice]", index))

    def _decode(self, index: Sequence[int | slice]) -> Any:
        runs = [slice(i, i + 1) if isinstance(i, int) else i for i in index]
        shape = [run.stop - run.start for run in runs]
        try:
            if not self._is_sharded:
                values = self._whole[tuple(runs)]
            elif all(shape):
                values = self._read_shards(runs)
            else:
                values = np.empty(shape, self.dtype)
        except ChunkError as error:
            reason = f"cannot be decoded ({error})"
            raise UnreadableError(self._where(runs[0]), reason, mending(self.path)) from error
        except OSError as error:
            reason = error.strerror or str(error)
            then = _TRY_AGAIN_REMOTE if self._files.is_remote else what_to_do(error)
            raise ReadError(f"{self._where(runs[0])} cannot be read ({reason}); {then}") from error
        return values[tuple(0 if isinstance(i, int) else slice(None) for i in index)]

    def _read_shards(self, index: Sequence[slice]) -> NDArray[Any]:
        """Read a run of every dimension, within the array and not empty."""
        stored = self.dtype.newbyteorder("<")
        out = np.empty([run.stop - run.start for run in index], stored)
        for _ in threads().map(self._fill, [*self._parts(index, out)]):
            pass
        return out

    def _parts(
        self, index: Sequence[slice], out: NDArray[Any]
    ) -> Iterator[tuple[int, int, int, int | None, NDArray[Any], tuple[slice, ...]]]:
        """Yield of each chunk: shard, offset, length, checksum, where it goes, what is meant."""
        numbers = [
            range(run.start // chunk, -(-run.stop // chunk))
            for run, chunk in zip(index, self.chunks, strict=True)
        ]
        step = self.shards[0] // self.chunks[0]
        for shard, along_rows in itertools.groupby(numbers[0], lambda number: number // step):
            table, crcs = self._table(shard)
            for place in itertools.product(along_rows, *numbers[1:]):
                inside = (place[0] % step, *place[1:])
                offset, length = (int(n) for n in table[inside])
                if length == ABSENT:
                    raise ChunkError(f"a chunk of shard {shard} is missing")
                targets, sources = [], []
                for run, number, chunk in zip(index, place, self.chunks, strict=True):
                    start, stop = number * chunk, (number + 1) * chunk
                    first, last = max(run.start, start), min(run.stop, stop)
                    targets.append(slice(first - run.start, last - run.start))
                    sources.append(slice(first - start, last - start))
                crc = None if crcs is None else int(crcs[inside])
                yield shard, offset, length, crc, out[tuple(targets)], tuple(sources)

    def _fill(
        self, chunk: tuple[int, int, int, int | None, NDArray[Any], tuple[slice, ...]]
    ) -> None:
        shard, offset, length, crc, target, source = chunk
        content = checked(self._bytes(shard, offset, length), f"a chunk of shard {shard}", crc)
        values = np.frombuffer(blosc.decompress(content), target.dtype).reshape(self.chunks)
        target[...] = values[source]

    def _table(self, shard: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32] | None]:
        """Return offset and length of each chunk, and its checksum, from the shard's end."""
        counts = [s // c for s, c in zip(self.shards, self.chunks, strict=True)]
        known = self._known(shard)
        n_bytes = 16 * prod(counts) + CRC_BYTES if known is None else tail_bytes(counts)
        content = self._bytes(shard, -n_bytes, n_bytes)
        if known is None:
            index = checked(content, f"the index of shard {shard}")
            return np.frombuffer(index, "<u8").reshape(*counts, 2), None
        place = place_of_shard(self._fingerprint, self.name, shard)
        tail = read_tail(content, counts, place, f"shard {shard}")
        if tail.digest != known.digest:
            raise ChunkError(f"shard {shard} is another than when the store was sealed")
        return tail.table, tail.crcs

    def _known(self, shard: int) -> Facts | None:
        return None if self._facts is None else Facts(*self._facts[shard].tolist())

    def _bytes(self, shard: int, offset: int, length: int) -> bytes:
        name = f"{self.name}/{shard_key(shard, self.ndim, self._separator)}"
        known = self._known(shard)
        try:
            return self._files.read_range(name, offset, length, known and known.n_bytes)
        except (FileNotFoundError, NotADirectoryError):
            raise ChunkError(f"shard {shard} is missing") from None
        except SizeError as error:
            raise ChunkError(str(error)) from error

    @cached_property
    def _whole(self) -> NDArray[Any]:
        key = f"{self.name}/{shard_key(0, self.ndim, self._separator)}"
        try:
            content = cpu.Buffer.from_bytes(self._files.read(key))
        except FileNotFoundError:
            raise ChunkError(f"{key} is missing") from None
        where = StorePath(MemoryStore({key: content}, read_only=True), self.name)
        try:
            return np.asarray(zarr.Array.from_dict(where, dict(self.metadata))[:])
        except (OSError, MemoryError):
            raise
        except Exception as error:  # each codec raises its own class
            raise ChunkError(next(iter(str(error).splitlines()), type(error).__name__)) from error

    def _where(self, rows: slice) -> str:
        noun = "images" if self.dims[0] == "image" else "entries"
        return f"{self.path}: {noun} {rows.start} to {rows.stop - 1} of {self.name}"


def _runs(unique: Picks, chunk: int) -> list[Picks]:
    """Cut ascending numbers into runs that are read at once, each of chunks that hold some."""
    if chunk > 1 and unique[-1] - unique[0] < _SPARSE * len(unique):
        # A run is read many times faster than entries of it.
        return [unique]
    apart = (np.diff(unique) > 1) & (np.diff(unique // chunk) > 0)
    return np.split(unique, np.flatnonzero(apart) + 1)
