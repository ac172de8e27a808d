"""Reading shards: the chunks that are asked for, each held against its checksum.

The layout is Zarr v3's (``sharding_indexed`` with Blosc and CRC-32C inside). It is read here
because neither implementation will do: zarrs leaves out the checksums of chunks when it reads a
part of a shard, and zarr's own takes longer (docs/benchmarks.md). This one has no threads that a
fork would lose.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from vitfeat.store import codec
from vitfeat.store.files import Files, SizeError

#: Bytes of a checksum.
CRC_BYTES = 4

# The CRC-32C of any bytes followed by their own CRC-32C, as of none followed by 0.
_CRC_OF_CHECKED = google_crc32c.value(bytes(CRC_BYTES))

#: Offset and length of a chunk that was never written.
ABSENT = np.iinfo(np.uint64).max

_CODECS = ["bytes", "blosc", "crc32c"]


class ChunkError(Exception):
    """A chunk that is missing or damaged; says which, in words."""


class ShardReader:
    """Reads one array.

    Parameters
    ----------
    files, name
        The store's, and the array.
    metadata
        What its ``zarr.json`` holds.
    sizes
        int64 (shard,): what the shards must have, where the seal says it.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        metadata: Mapping[str, Any],
        sizes: NDArray[np.int64] | None = None,
    ) -> None:
        sharding = metadata["codecs"][0]["configuration"]
        self._files = files
        self._name = name
        self._sizes = sizes
        self._shape: tuple[int, ...] = tuple(metadata["shape"])
        self._dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        self._chunk: tuple[int, ...] = tuple(sharding["chunk_shape"])
        shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        self._chunks_of_a_shard = tuple(s // c for s, c in zip(shard, self._chunk, strict=True))
        self._separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
        names = [c["name"] for c in sharding["codecs"]]
        if names != _CODECS or sharding.get("index_location", "end") != "end":
            raise ValueError(f"codecs {', '.join(names)} are not those of a store")

    def read(self, index: Sequence[slice]) -> NDArray[Any]:
        """Read a run of every dimension.

        Parameters
        ----------
        index
            Start and stop along each, within the array and not empty.

        Raises
        ------
        ChunkError
            A chunk is missing or damaged.
        OSError
            A file cannot be read.
        """
        out = np.empty([one.stop - one.start for one in index], self._dtype)
        tasks = list(self._tasks(index, out))
        for _ in codec.codec_threads().map(self._decode, tasks):
            pass
        return out

    def _tasks(
        self, index: Sequence[slice], out: NDArray[Any]
    ) -> Iterator[tuple[int, int, int, NDArray[Any], tuple[slice, ...]]]:
        """Yield for each chunk: shard, offset, length, where it goes, what of it is meant."""
        numbers = [
            range(one.start // chunk, -(-one.stop // chunk))
            for one, chunk in zip(index, self._chunk, strict=True)
        ]
        step = self._chunks_of_a_shard[0]
        for shard, along_rows in itertools.groupby(numbers[0], lambda number: number // step):
            table = self._table(shard)
            for place in itertools.product(along_rows, *numbers[1:]):
                offset, length = (int(n) for n in table[(place[0] % step, *place[1:])])
                if length == ABSENT:
                    raise ChunkError(f"a chunk of shard {shard} is missing")
                targets, sources = [], []
                for one, number, chunk in zip(index, place, self._chunk, strict=True):
                    start, stop = number * chunk, (number + 1) * chunk
                    first, last = max(one.start, start), min(one.stop, stop)
                    targets.append(slice(first - one.start, last - one.start))
                    sources.append(slice(first - start, last - start))
                yield shard, offset, length, out[tuple(targets)], tuple(sources)

    def _decode(self, task: tuple[int, int, int, NDArray[Any], tuple[slice, ...]]) -> None:
        shard, offset, length, target, source = task
        content = _checked(self._bytes(shard, offset, length), f"a chunk of shard {shard}")
        values = np.frombuffer(blosc.decompress(content), self._dtype).reshape(self._chunk)
        target[...] = values[source]

    def _table(self, shard: int) -> NDArray[np.uint64]:
        """Return offset and length of each chunk, which stand at the shard's end."""
        n_bytes = 16 * prod(self._chunks_of_a_shard) + CRC_BYTES
        content = _checked(self._bytes(shard, -n_bytes, n_bytes), f"the index of shard {shard}")
        return np.frombuffer(content, "<u8").reshape(*self._chunks_of_a_shard, 2)

    def _bytes(self, shard: int, offset: int, length: int) -> bytes:
        key = codec.shard_key(shard, len(self._shape), self._separator)
        size = None if self._sizes is None else int(self._sizes[shard])
        try:
            return self._files.read_range(f"{self._name}/{key}", offset, length, size)
        except (FileNotFoundError, NotADirectoryError):
            raise ChunkError(f"shard {shard} is missing") from None
        except SizeError as error:
            raise ChunkError(str(error)) from error


def _checked(content: bytes, what: str) -> memoryview:
    """Return what stands before a checksum, if that is right."""
    if len(content) <= CRC_BYTES or google_crc32c.value(content) != _CRC_OF_CHECKED:
        raise ChunkError(f"the checksum of {what} is wrong")
    return memoryview(content)[:-CRC_BYTES]


def is_whole(path: Path, counts: Sequence[int], used: Sequence[int], *, every_chunk: bool) -> bool:
    """Return whether a file is a whole shard: its table right, and as long as that says.

    Parameters
    ----------
    path
        The file; it need not be there.
    counts, used
        How many chunks a shard has along each dimension, and how many of them hold something.
    every_chunk
        Whether all of it is read and held against the checksums.
    """
    n_bytes = 16 * prod(counts) + CRC_BYTES
    try:
        with path.open("rb") as file:
            start = file.seek(0, os.SEEK_END) - n_bytes
            if start < 0:
                return False
            file.seek(start)
            table = np.frombuffer(_checked(file.read(), "the index"), "<u8").reshape(-1, 2)
            there = table[table[:, 1] != ABSENT]
            if len(there) != prod(used) or there[:, 1].sum() != start:
                return False
            if every_chunk:
                for offset, length in there.tolist():
                    file.seek(offset)
                    _checked(file.read(length), "a chunk")
    except (FileNotFoundError, NotADirectoryError, ChunkError):
        return False
    return True
