"""How chunks are encoded, and which implementation of the codecs does it.

The choice is measured: docs/benchmarks.md has the table. Blosc with LZ4 after a bit shuffle takes
about a tenth off float16 features at the cost of a plain copy; stronger compressors win one or two
per cent more for twice the time. Each chunk ends in a CRC-32C, so a flipped bit is an error.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

#: Between the numbers of a shard's file name: one folder an array, and none a shard.
SEPARATOR = "."


def compressors(dtype: str) -> tuple[BloscCodec, Crc32cCodec]:
    """Return the codecs behind the array-to-bytes codec, for one element type."""
    return (
        BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=np.dtype(dtype).itemsize),
        Crc32cCodec(),
    )


def serializer() -> BytesCodec:
    """Return the array-to-bytes codec: little-endian, whatever the machine."""
    return BytesCodec(endian="little")


def shard_key(shard: int, ndim: int, separator: str = SEPARATOR) -> str:
    """Return the file of a shard, or of an unsharded array's chunk, below its array's folder.

    Shards reach over everything but the first dimension.
    """
    return separator.join(["c", str(shard), *["0"] * (ndim - 1)])


def pipeline(*, reproducible: bool = False) -> AbstractContextManager[Any]:
    """Return a context in which arrays are opened for writing with the fastest codecs there are.

    zarr picks the implementation when an array is opened, so that only the opening needs it.
    The zarrs pipeline is about twice as fast; the bytes on disk are the same Zarr v3. It is not
    for reading: of a part of a shard it checks no checksums (``shards.py``).

    Parameters
    ----------
    reproducible
        Whether equal numbers must become equal bytes: zarrs appends the chunks of a shard as its
        threads finish them, so that it must use a single one.
    """
    settings: dict[str, Any] = {"threading.max_workers": 1} if reproducible else {}
    if find_spec("zarrs"):
        settings["codec_pipeline.path"] = "zarrs.ZarrsCodecPipeline"
    context: AbstractContextManager[Any] = zarr.config.set(settings)
    return context
