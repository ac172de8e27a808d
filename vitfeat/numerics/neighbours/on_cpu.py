"""Merging products of images into lists of the nearest, with NumPy.

Most of a product never matters: once a list is full, what is not above its last entry is passed
over by one comparison, and what remains is a few numbers a row. So a search costs little more than
its matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from vitfeat.numerics.neighbours.keys import EMPTY, Keys, similarities_of, to_keys

Floats = NDArray[np.float32]

TILE = 4096
"""Images of the bank that are compared at once."""

ROWS = 512
"""Queries of a product: with a tile 8 MiB, which stay in a core's cache."""


class CpuSearch:
    """Lists of the k images nearest to some queries, over tiles of a bank.

    Threads take queries, and every product has one thread, so that the numbers do not depend on
    how many threads there are.
    """

    def __init__(self, queries: Floats, k: int, pool: Executor) -> None:
        self._queries, self._pool = queries, pool
        self._best: Keys = np.full((len(queries), k), EMPTY, dtype=np.int64)

    def add(self, tile: Floats, start: int) -> None:
        """Compare with images start, start + 1, ... of the bank, float32 (image, channel).

        Tiles come in ascending order.
        """

        def compare(first: int) -> None:
            rows = slice(first, first + ROWS)
            merge(self._best[rows], self._queries[rows] @ tile.T, start)

        for _ in self._pool.map(compare, range(0, len(self._queries), ROWS)):
            pass  # what fails is raised

    def sorted_keys(self) -> Keys:
        """Return the lists, int64 (query, k), nearest first."""
        self._best.sort(axis=1)
        return self._best[:, ::-1]


def merge(best: Keys, product: Floats, start: int) -> None:
    """Merge a product (query, image), of images start, start + 1, ..., into lists of the greatest.

    ``best`` is changed in place. The first of a list is its least, or empty; ``start`` is beyond
    the images that lists have.
    """
    columns = product.shape[1]
    # Of equal similarity the earlier image is nearer: one that comes later must be above the last.
    flat = np.flatnonzero(product > _limits(best, product)[:, None])
    if not len(flat):
        return
    starts = np.searchsorted(flat, np.arange(len(best) + 1) * columns)
    counts = np.diff(starts)
    rows = np.repeat(np.arange(len(best)), counts)
    keys = to_keys(product.reshape(-1)[flat], flat - rows * columns + start)
    place = np.arange(len(flat)) - starts[rows]
    for chosen, most in _alike(counts, best.shape[1]):
        _merge_rows(best, chosen, most, rows, place, keys)


def _limits(best: Keys, product: Floats) -> Floats:
    """Return what a similarity must be above to come into a list, float32 (query,)."""
    k, columns = best.shape[1], product.shape[1]
    limits: Floats = similarities_of(best[:, 0])
    if columns >= k and np.isneginf(limits).all():
        # Lists that are not full take no more than the k greatest either.
        least = np.partition(product, columns - k, axis=1)[:, columns - k]
        return np.nextafter(least, np.float32(-np.inf))
    return limits


def _alike(counts: NDArray[np.int64], k: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Group the rows that have candidates by how many they have, and say the most of each group.

    Classes often stand together in a bank: then a few rows have many candidates, and a table as
    wide as theirs for all rows would be mostly empty.
    """
    low, most = 0, int(counts.max())
    while low < most:
        high = min(max(4 * low, k // 4, 1), most)
        chosen = np.flatnonzero((counts > low) & (counts <= high))
        if len(chosen):
            yield chosen, high
        low = high


def _merge_rows(
    best: Keys,
    chosen: NDArray[np.int64],
    most: int,
    rows: NDArray[np.int64],
    place: NDArray[np.int64],
    keys: Keys,
) -> None:
    """Merge the candidates of the chosen rows: ``keys[i]`` is number ``place[i]`` of a row."""
    k = best.shape[1]
    slots = np.full(len(best), -1)
    slots[chosen] = np.arange(len(chosen))
    slot = slots[rows]
    used = slot >= 0
    table = np.full((len(chosen), k + most), EMPTY)
    table[:, :k] = best[chosen]
    table[slot[used], k + place[used]] = keys[used]
    table.partition(most, axis=1)
    best[chosen] = table[:, most:]
