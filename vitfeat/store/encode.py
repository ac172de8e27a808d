"""Numbers to the bytes of a shard, as docs/store.md lays them out.

Written here and not by Zarr: a shard's bytes can then be put on the disk before it gets its name,
and its chunks are encoded side by side and still stand in the same order every time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from vitfeat.store import codec
from vitfeat.store.shards import ABSENT, CRC_BYTES


def encode_shard(
    values: NDArray[np.generic], chunk: Sequence[int], shard: Sequence[int]
) -> list[bytes]:
    """Return a shard, in pieces that follow each other.

    Parameters
    ----------
    values
        The shard's entries; the last shard of an array may be short.
    chunk, shard
        Shapes of a chunk and of a whole shard. Both reach over all of an entry, but for a layer.
    """
    counts = [s // c for s, c in zip(shard, chunk, strict=True)]
    used = [-(-n // c) for n, c in zip(values.shape, chunk, strict=True)]
    # The chunks of a layer stand together, since most readers read a layer.
    order = sorted(itertools.product(*map(range, used)), key=lambda place: (place[1:], place[0]))
    table = np.full((*counts, 2), ABSENT, np.uint64)
    chunks = [*codec.codec_threads().map(lambda place: _encode(values, chunk, place), order)]
    offset = 0
    for place, content in zip(order, chunks, strict=True):
        table[place] = offset, len(content)
        offset += len(content)
    return [*chunks, _with_checksum(table.astype("<u8").tobytes())]


def _encode(values: NDArray[np.generic], chunk: Sequence[int], place: tuple[int, ...]) -> bytes:
    cut = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk, strict=True))]
    if cut.shape != tuple(chunk):
        whole = np.full(chunk, np.nan, values.dtype)
        whole[tuple(map(slice, cut.shape))] = cut
        cut = whole
    stored = np.ascontiguousarray(cut, cut.dtype.newbyteorder("<"))
    return _with_checksum(codec.compress(stored))


def _with_checksum(content: bytes) -> bytes:
    crc: int = google_crc32c.value(content)
    return content + crc.to_bytes(CRC_BYTES, "little")
