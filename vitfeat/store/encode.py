"""Numbers to the bytes of a shard, as docs/store.md lays them out.

Written here and not by Zarr: a shard's bytes can then be put on the disk before it gets its name,
and its chunks are encoded side by side and still stand in the same order every time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitfeat.store import codec
from vitfeat.store.shards import ABSENT, CRC_BYTES, Facts, tail_of, with_checksum


def encode_shard(
    values: NDArray[np.generic], chunk: Sequence[int], shard: Sequence[int], place: str
) -> tuple[list[bytes], Facts]:
    """Return a shard, in pieces that follow each other, and what its seal says of it.

    Parameters
    ----------
    values
        The shard's entries; the last shard of an array may be short.
    chunk, shard
        Shapes of a chunk and of a whole shard. Both reach over all of an entry, but for a layer.
    place
        Which one it is, as :func:`vitfeat.store.shards.place_of_shard` returns it.
    """
    counts = [s // c for s, c in zip(shard, chunk, strict=True)]
    used = [-(-n // c) for n, c in zip(values.shape, chunk, strict=True)]
    # The chunks of a layer stand together, since most readers read a layer.
    order = sorted(itertools.product(*map(range, used)), key=lambda place: (place[1:], place[0]))
    table = np.full((*counts, 2), ABSENT, np.uint64)
    crcs = np.zeros(counts, np.uint32)
    chunks = [*codec.codec_threads().map(lambda inside: _encode(values, chunk, inside), order)]
    offset = 0
    for inside, content in zip(order, chunks, strict=True):
        table[inside] = offset, len(content)
        crcs[inside] = int.from_bytes(content[-CRC_BYTES:], "little")
        offset += len(content)
    tail, digest = tail_of(table, crcs, place)
    return [*chunks, tail], Facts(offset + len(tail), digest)


def _encode(values: NDArray[np.generic], chunk: Sequence[int], inside: tuple[int, ...]) -> bytes:
    cut = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(inside, chunk, strict=True))]
    if cut.shape != tuple(chunk):
        whole = np.full(chunk, np.nan, values.dtype)
        whole[tuple(map(slice, cut.shape))] = cut
        cut = whole
    stored = np.ascontiguousarray(cut, cut.dtype.newbyteorder("<"))
    return with_checksum(codec.compress(stored))
