"""How chunks are encoded, and the files that they stand in.

The choice is measured: docs/benchmarks.md has the table. Blosc with LZ4 after a bit shuffle takes
about a tenth off float16 features at the cost of a plain copy; stronger compressors win one or two
per cent more for twice the time. Each chunk ends in a CRC-32C, so a flipped bit is an error.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

#: Between the numbers of a shard's file name: one folder an array, and none a shard.
SEPARATOR = "."

_COMPRESSOR: Final = "lz4"
_LEVEL = 5

# Threads that encode and decode; more than that, and the disk or the memory is what takes long.
_THREADS = 8

_pool: tuple[int, ThreadPoolExecutor] | None = None


def compressors(dtype: str) -> tuple[BloscCodec, Crc32cCodec]:
    """Return the codecs behind the array-to-bytes codec, for one element type."""
    return (
        BloscCodec(
            cname=_COMPRESSOR,
            clevel=_LEVEL,
            shuffle="bitshuffle",
            typesize=np.dtype(dtype).itemsize,
        ),
        Crc32cCodec(),
    )


def serializer() -> BytesCodec:
    """Return the array-to-bytes codec: little-endian, whatever the machine."""
    return BytesCodec(endian="little")


def compress(chunk: NDArray[np.generic]) -> bytes:
    """Return a chunk as :func:`compressors` says, without the checksum."""
    itemsize = chunk.dtype.itemsize
    compressed: bytes = blosc.compress(
        chunk, _COMPRESSOR.encode(), _LEVEL, blosc.BITSHUFFLE, 0, itemsize
    )
    return compressed


def codec_threads() -> ThreadPoolExecutor:
    """Return this process's threads for chunks: a fork leaves none.

    Use them even for one chunk: on the main thread Blosc starts threads of its own.
    """
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        threads = min(_THREADS, os.cpu_count() or 1)
        _pool = os.getpid(), ThreadPoolExecutor(threads, thread_name_prefix="vitfeat-chunks")
    return _pool[1]


def shard_key(shard: int, ndim: int, separator: str = SEPARATOR) -> str:
    """Return the file of a shard, or of an unsharded array's chunk, below its array's folder.

    Shards reach over everything but the first dimension.
    """
    return separator.join(["c", str(shard), *["0"] * (ndim - 1)])
