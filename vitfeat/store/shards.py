"""Reading shards: the chunks that are asked for, each held against its checksum.

The layout is Zarr v3's (``sharding_indexed`` with Blosc and CRC-32C inside). What ties chunks to
each other and to their place in a store stands between them and Zarr's index (:func:`tail_of`).
Shards are read here because neither implementation will do: zarrs leaves out the checksums of
chunks when it reads a part of a shard, and zarr's own takes longer (docs/benchmarks.md). This
reader has no threads that a fork would lose.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

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

_DIGEST_BYTES = 8


class ChunkError(Exception):
    """A chunk that is missing or damaged; says which, in words."""


class Facts(NamedTuple):
    """What a shard's seal says of it.

    Attributes
    ----------
    n_bytes
        Its size.
    digest
        Of its chunks, their order, and where they belong.
    """

    n_bytes: int
    digest: int


def place_of_shard(fingerprint: str, name: str, shard: int) -> str:
    """Return in words which store, array and shard it is: no other shard is taken for it."""
    return f"{fingerprint} {name} {shard}"


def tail_of(table: NDArray[np.uint64], crcs: NDArray[np.uint32], place: str) -> tuple[bytes, int]:
    """Return what stands behind a shard's chunks, and the digest in it.

    Zarr's index has the chunks' places alone, and each chunk a checksum of itself: a shard, or a
    chunk, that stands in another's place would read as its numbers.

    Parameters
    ----------
    table
        Offset and length of each chunk.
    crcs
        The checksum that each chunk ends in; 0 of one that is absent.
    place
        As :func:`place_of_shard` returns it.
    """
    sums, index = crcs.astype("<u4").tobytes(), table.astype("<u8").tobytes()
    digest = _digest(place, sums, index)
    return sums + digest + with_checksum(index), _number(digest)


def with_checksum(content: bytes) -> bytes:
    """Return some bytes and their CRC-32C behind them."""
    crc: int = google_crc32c.value(content)
    return content + crc.to_bytes(CRC_BYTES, "little")


class _Tail(NamedTuple):
    """What stands behind a shard's chunks, checked; of each chunk a place in both arrays."""

    table: NDArray[np.uint64]
    crcs: NDArray[np.uint32]
    digest: int


def _tail_bytes(counts: Sequence[int]) -> int:
    return 20 * prod(counts) + _DIGEST_BYTES + CRC_BYTES


def _read_tail(content: bytes, counts: Sequence[int], place: str, what: str) -> _Tail:
    sums, rest = content[: 4 * prod(counts)], content[4 * prod(counts) :]
    digest, index = rest[:_DIGEST_BYTES], _checked(rest[_DIGEST_BYTES:], f"the index of {what}")
    if digest != _digest(place, sums, index):
        raise ChunkError(f"{what} is damaged, or that of another array, place or store")
    return _Tail(
        np.frombuffer(index, "<u8").reshape(*counts, 2),
        np.frombuffer(sums, "<u4").reshape(counts),
        _number(digest),
    )


def _digest(place: str, sums: bytes, index: bytes | memoryview) -> bytes:
    # Not a CRC: that of something and its own CRC is always the same.
    return hashlib.sha256(b"\n".join((place.encode(), sums, index))).digest()[:_DIGEST_BYTES]


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little", signed=True)


class ShardReader:
    """Reads one array.

    Parameters
    ----------
    files, name
        The store's, and the array.
    metadata
        What its ``zarr.json`` holds.
    fingerprint
        The store's.
    facts
        int64 (shard, 2): the :class:`Facts` of each; of stores of earlier versions there are none.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        metadata: Mapping[str, Any],
        fingerprint: str,
        facts: NDArray[np.int64] | None,
    ) -> None:
        sharding = metadata["codecs"][0]["configuration"]
        self._files = files
        self._name = name
        self._fingerprint = fingerprint
        self._facts = facts
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
    ) -> Iterator[tuple[int, int, int, int | None, NDArray[Any], tuple[slice, ...]]]:
        """Yield of each chunk: shard, offset, length, checksum, where it goes, what is meant."""
        numbers = [
            range(one.start // chunk, -(-one.stop // chunk))
            for one, chunk in zip(index, self._chunk, strict=True)
        ]
        step = self._chunks_of_a_shard[0]
        for shard, along_rows in itertools.groupby(numbers[0], lambda number: number // step):
            table, crcs = self._table(shard)
            for place in itertools.product(along_rows, *numbers[1:]):
                inside = (place[0] % step, *place[1:])
                offset, length = (int(n) for n in table[inside])
                if length == ABSENT:
                    raise ChunkError(f"a chunk of shard {shard} is missing")
                targets, sources = [], []
                for one, number, chunk in zip(index, place, self._chunk, strict=True):
                    start, stop = number * chunk, (number + 1) * chunk
                    first, last = max(one.start, start), min(one.stop, stop)
                    targets.append(slice(first - one.start, last - one.start))
                    sources.append(slice(first - start, last - start))
                crc = None if crcs is None else int(crcs[inside])
                yield shard, offset, length, crc, out[tuple(targets)], tuple(sources)

    def _decode(
        self, task: tuple[int, int, int, int | None, NDArray[Any], tuple[slice, ...]]
    ) -> None:
        shard, offset, length, crc, target, source = task
        content = _checked(self._bytes(shard, offset, length), f"a chunk of shard {shard}", crc)
        values = np.frombuffer(blosc.decompress(content), self._dtype).reshape(self._chunk)
        target[...] = values[source]

    def _table(self, shard: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32] | None]:
        """Return offset and length of each chunk, and its checksum, from the shard's end."""
        counts = self._chunks_of_a_shard
        if self._facts is None:
            n_bytes = 16 * prod(counts) + CRC_BYTES
            index = _checked(self._bytes(shard, -n_bytes, n_bytes), f"the index of shard {shard}")
            return np.frombuffer(index, "<u8").reshape(*counts, 2), None
        n_bytes = _tail_bytes(counts)
        content = self._bytes(shard, -n_bytes, n_bytes)
        place = place_of_shard(self._fingerprint, self._name, shard)
        tail = _read_tail(content, counts, place, f"shard {shard}")
        if tail.digest != Facts(*self._facts[shard].tolist()).digest:
            raise ChunkError(f"shard {shard} is another than when the store was sealed")
        return tail.table, tail.crcs

    def _bytes(self, shard: int, offset: int, length: int) -> bytes:
        key = codec.shard_key(shard, len(self._shape), self._separator)
        size = None if self._facts is None else Facts(*self._facts[shard].tolist()).n_bytes
        try:
            return self._files.read_range(f"{self._name}/{key}", offset, length, size)
        except (FileNotFoundError, NotADirectoryError):
            raise ChunkError(f"shard {shard} is missing") from None
        except SizeError as error:
            raise ChunkError(str(error)) from error


def _checked(content: bytes, what: str, crc: int | None = None) -> memoryview:
    """Return what stands before a checksum, if that is right, and the one expected."""
    if len(content) <= CRC_BYTES or google_crc32c.value(content) != _CRC_OF_CHECKED:
        raise ChunkError(f"the checksum of {what} is wrong")
    if crc is not None and crc != int.from_bytes(content[-CRC_BYTES:], "little"):
        raise ChunkError(f"{what} stands in another's place")
    return memoryview(content)[:-CRC_BYTES]


def whole_shard(
    path: Path, counts: Sequence[int], used: Sequence[int], place: str, *, every_chunk: bool
) -> Facts | None:
    """Return the facts of a file if it is a whole shard: in its place, as long as its index says.

    Parameters
    ----------
    path
        The file; it need not be there.
    counts, used
        How many chunks a shard has along each dimension, and how many of them hold something.
    place
        Which shard it must be, as :func:`place_of_shard` returns it.
    every_chunk
        Whether all of it is read and held against the checksums.
    """
    try:
        with path.open("rb") as file:
            start = file.seek(0, os.SEEK_END) - _tail_bytes(counts)
            if start < 0:
                return None
            file.seek(start)
            tail = _read_tail(file.read(), counts, place, "it")
            is_there = tail.table[..., 1] != ABSENT
            there = tail.table[is_there]
            if len(there) != prod(used) or there[:, 1].sum() != start:
                return None
            if every_chunk:
                for (offset, length), crc in zip(
                    there.tolist(), tail.crcs[is_there].tolist(), strict=True
                ):
                    file.seek(offset)
                    _checked(file.read(length), "a chunk", crc)
    except (FileNotFoundError, NotADirectoryError, ChunkError):
        return None
    return Facts(start + _tail_bytes(counts), tail.digest)
