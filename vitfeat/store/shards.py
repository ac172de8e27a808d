"""Shards of an array, written and read: chunks, each with its checksum, in one file.

The layout is Zarr v3's (``sharding_indexed`` with Blosc and CRC-32C inside; docs/store.md). What
ties chunks to each other and to their place in a store stands between them and Zarr's index. Shards
are written and read here because neither implementation will do: zarrs leaves out the checksums of
chunks when it reads a part of a shard, and zarr's own takes longer (docs/benchmarks.md). Here a
shard can be put on the disk before it gets its name, equal numbers are equal bytes, and there are
no threads that a fork would lose.

The codec is measured, too: Blosc with LZ4 after a bit shuffle takes about a tenth off float16
features at the cost of a plain copy; stronger compressors win one or two per cent more for twice
the time.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

_COMPRESSOR: Final = "lz4"
_LEVEL = 5

# Threads that encode and decode; more than that, and the disk or the memory is what takes long.
_THREADS = 8

#: Of a checksum.
CRC_BYTES = 4
_DIGEST_BYTES = 8

# The CRC-32C of any bytes followed by their own CRC-32C, as of none followed by 0.
_CRC_OF_CHECKED = google_crc32c.value(bytes(CRC_BYTES))

#: Offset and length of a chunk that was never written.
ABSENT = np.iinfo(np.uint64).max

_pool: tuple[int, ThreadPoolExecutor] | None = None


class ChunkError(Exception):
    """A chunk that is missing or damaged; says which, in words."""


class Facts(NamedTuple):
    """What a shard's seal says of it: its size, a digest of its chunks and where they belong."""

    n_bytes: int
    digest: int


def compressors(dtype: str) -> tuple[BloscCodec, Crc32cCodec]:
    """Return the codecs behind the array-to-bytes codec, for one element type."""
    size = np.dtype(dtype).itemsize
    return (
        BloscCodec(cname=_COMPRESSOR, clevel=_LEVEL, shuffle="bitshuffle", typesize=size),
        Crc32cCodec(),
    )


def serializer() -> BytesCodec:
    """Return the array-to-bytes codec: little-endian, whatever the machine."""
    return BytesCodec(endian="little")


def place_of_shard(fingerprint: str, name: str, shard: int) -> str:
    """Return in words which store, array and shard it is: no other shard is taken for it."""
    return f"{fingerprint} {name} {shard}"


def encode_shard(
    values: NDArray[np.generic], chunk: Sequence[int], shard: Sequence[int], place: str
) -> tuple[list[bytes], Facts]:
    """Return a shard, in pieces that follow each other, and what its seal says of it.

    Of its entries, which may be short of a shard, the shapes of a chunk and of a whole shard, which
    reach over all of an entry but for a layer, and its place (:func:`place_of_shard`).
    """
    counts = [s // c for s, c in zip(shard, chunk, strict=True)]
    used = [-(-n // c) for n, c in zip(values.shape, chunk, strict=True)]
    # The chunks of a layer stand together, since most readers read a layer.
    order = sorted(itertools.product(*map(range, used)), key=lambda place: (place[1:], place[0]))
    table = np.full((*counts, 2), ABSENT, np.uint64)
    crcs = np.zeros(counts, np.uint32)
    chunks = [*threads().map(lambda inside: _encode(values, chunk, inside), order)]
    offset = 0
    for inside, content in zip(order, chunks, strict=True):
        table[inside] = offset, len(content)
        crcs[inside] = int.from_bytes(content[-CRC_BYTES:], "little")
        offset += len(content)
    # Zarr's index has the chunks' places alone, and each chunk a checksum of itself: a shard, or a
    # chunk, that stands in another's place would read as its numbers.
    sums, index = crcs.astype("<u4").tobytes(), table.astype("<u8").tobytes()
    digest = _digest(place, sums, index)
    tail = sums + digest + _with_checksum(index)
    return [*chunks, tail], Facts(offset + len(tail), _number(digest))


def _encode(values: NDArray[np.generic], chunk: Sequence[int], inside: tuple[int, ...]) -> bytes:
    cut = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(inside, chunk, strict=True))]
    if cut.shape != tuple(chunk):
        whole = np.full(chunk, np.nan, values.dtype)
        whole[tuple(map(slice, cut.shape))] = cut
        cut = whole
    stored = np.ascontiguousarray(cut, cut.dtype.newbyteorder("<"))
    compressed: bytes = blosc.compress(
        stored, _COMPRESSOR.encode(), _LEVEL, blosc.BITSHUFFLE, 0, stored.dtype.itemsize
    )
    return _with_checksum(compressed)


def threads() -> ThreadPoolExecutor:
    """Return this process's threads for chunks: a fork leaves none.

    Use them even for one chunk: on the main thread Blosc starts threads of its own.
    """
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        threads = min(_THREADS, os.cpu_count() or 1)
        _pool = os.getpid(), ThreadPoolExecutor(threads, thread_name_prefix="vitfeat-chunks")
    return _pool[1]


def _with_checksum(content: bytes) -> bytes:
    crc: int = google_crc32c.value(content)
    return content + crc.to_bytes(CRC_BYTES, "little")


def checked(content: bytes, what: str, crc: int | None = None) -> memoryview:
    """Return what stands before a checksum, if that is right, and the one expected."""
    if len(content) <= CRC_BYTES or google_crc32c.value(content) != _CRC_OF_CHECKED:
        raise ChunkError(f"the checksum of {what} is wrong")
    if crc is not None and crc != int.from_bytes(content[-CRC_BYTES:], "little"):
        raise ChunkError(f"{what} stands in another's place")
    return memoryview(content)[:-CRC_BYTES]


class _Tail(NamedTuple):
    """What stands behind a shard's chunks: of each its offset and length, and its checksum."""

    table: NDArray[np.uint64]
    crcs: NDArray[np.uint32]
    digest: int


def tail_bytes(counts: Sequence[int]) -> int:
    """Return how long the tail of a shard of so many chunks along each dimension is."""
    return 20 * prod(counts) + _DIGEST_BYTES + CRC_BYTES


def read_tail(content: bytes, counts: Sequence[int], place: str, what: str) -> _Tail:
    """Return a shard's tail, checked; `what` is the shard in words."""
    sums, rest = content[: 4 * prod(counts)], content[4 * prod(counts) :]
    digest, index = rest[:_DIGEST_BYTES], checked(rest[_DIGEST_BYTES:], f"the index of {what}")
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


def whole_shard(
    path: Path, counts: Sequence[int], used: Sequence[int], place: str, *, every_chunk: bool
) -> Facts | None:
    """Return the facts of a file if it is a whole shard: in its place, as long as its index says.

    It has `counts` chunks along each dimension, of which `used` hold something. With `every_chunk`
    all of it is read and held against the checksums.
    """
    try:
        with path.open("rb") as file:
            start = file.seek(0, os.SEEK_END) - tail_bytes(counts)
            if start < 0:
                return None
            file.seek(start)
            tail = read_tail(file.read(), counts, place, "it")
            is_there = tail.table[..., 1] != ABSENT
            there = tail.table[is_there]
            if len(there) != prod(used) or there[:, 1].sum() != start:
                return None
            if every_chunk:
                for (offset, length), crc in zip(
                    there.tolist(), tail.crcs[is_there].tolist(), strict=True
                ):
                    file.seek(offset)
                    checked(file.read(length), "a chunk", crc)
    except (FileNotFoundError, NotADirectoryError, ChunkError):
        return None
    return Facts(start + tail_bytes(counts), tail.digest)
