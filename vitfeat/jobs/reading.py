"""Reading a store's arrays for an analysis, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from vitfeat.analysis.cka.gram import Read
from vitfeat.data.index import Index
from vitfeat.errors import AnalysisError, StoreError
from vitfeat.store.reader import FeatureStore

Item = TypeVar("Item")

_END: Any = object()

# Entries are picked out of the run that they are in, if it is at most so many times longer.
_SPARSE = 2

Entries = NDArray[np.intp] | None
"""Which of an array's entries are meant, by their place along its first dimension; None is all."""


def shared_entries(
    store: FeatureStore, names: Sequence[str]
) -> tuple[NDArray[np.int64], dict[str, Entries]]:
    """Find the images that all of some arrays are of, since taps may be kept for some only.

    Returns
    -------
    NDArray
        int64: rows of the store, ascending.
    dict
        By name, where these images stand in the array.
    """
    rows = {name: np.asarray(store.rows(name)) for name in names}
    shared: NDArray[np.int64] = reduce(np.intersect1d, rows.values())
    entries: dict[str, Entries] = {}
    for name, own in rows.items():
        if np.array_equal(own, shared):
            entries[name] = None
        else:
            entries[name] = np.intersect1d(shared, own, return_indices=True)[2]
    return shared, entries


def reader(store: FeatureStore, name: str, position: int, entries: Entries = None) -> Read:
    """Return a function that reads some images of one layer.

    Parameters
    ----------
    store, name, position
        The array, and where the layer stands in it.
    entries
        Which of the array's entries images 0, 1, ... are.

    Returns
    -------
    Read
        Raises a StoreError where a chunk is damaged.
    """

    def read(start: int, stop: int) -> NDArray[Any]:
        return read_rows(store, name, start, stop, position, entries)

    return read


def read_rows(
    store: FeatureStore,
    name: str,
    start: int,
    stop: int,
    position: int | None = None,
    entries: Entries = None,
) -> NDArray[Any]:
    """Read rows start:stop of an array, or of the entries that are meant, of all layers or of one.

    Raises
    ------
    StoreError
        A chunk is damaged.
    """
    array = store[name]
    try:
        if entries is None:
            rows: Any = array[start:stop] if position is None else array[start:stop, position]
        else:
            picked = entries[start:stop]
            first, last = (int(picked.min()), int(picked.max())) if len(picked) else (0, -1)
            if last - first < _SPARSE * len(picked):
                # A run is read many times faster than entries of it.
                whole = slice(first, last + 1)
                run = np.asarray(array[whole] if position is None else array[whole, position])
                rows = run if (np.diff(picked) == 1).all() else run[picked - first]
            else:
                rows = array.oindex[picked] if position is None else array.oindex[picked, position]
        return np.asarray(rows)
    except Exception as error:  # each codec raises its own class
        raise StoreError(
            f"{store.path}: images {start} to {stop - 1} of {name} cannot be decoded "
            f"({str(error).splitlines()[0]}); remove the store and extract it again"
        ) from error


def index_of(store: FeatureStore, path: Path) -> Index:
    """Read the index that a store was made from.

    Raises
    ------
    AnalysisError
        It lists other images.
    """
    index = Index.read(path)
    if index.fingerprint != store.image_fingerprint:
        raise AnalysisError(
            f"{path} lists other images than {store.path} was made from: give the index of its "
            "dataset, or extract the store again"
        )
    return index


def image_tokens(
    store: FeatureStore, row: int, position: int, name: str = "spatial"
) -> NDArray[Any]:
    """Read the spatial tokens of one image and layer, whatever the store's grids.

    Parameters
    ----------
    store, row, position
        The image, and where the layer stands in the array.
    name
        An array of spatial tokens of all images.

    Returns
    -------
    NDArray
        (Y, X, channel), in the stored type.

    Raises
    ------
    StoreError
        There is no such array, or a chunk is damaged.
    """
    if not store.is_ragged:
        return np.asarray(read_rows(store, name, row, row + 1, position)[0])
    start, stop = (int(place) for place in store.token_start[row : row + 2])
    tokens = read_rows(store, name, start, stop, position)
    rows, columns = (int(side) for side in store.grid_shapes[row])
    return np.reshape(tokens, (rows, columns, tokens.shape[-1]))


def rows_that_fit(array: zarr.Array[Any], max_bytes: int, extra: int = 0) -> int:
    """Return how many images of one layer fit into a bound: whole chunks, or less than one.

    Parameters
    ----------
    array
        (image, layer, ...).
    max_bytes
        The bound.
    extra
        Bytes an image that the caller needs beside the array's own.

    Returns
    -------
    int
        At least 1.
    """
    rows = max(1, max_bytes // (prod(array.shape[2:]) * array.dtype.itemsize + extra))
    return whole_chunks(array, rows)


def whole_chunks(array: zarr.Array[Any], rows: int) -> int:
    """Round a number of rows down to whole chunks, where it is more than one chunk."""
    chunk = array.chunks[0]
    return rows - rows % chunk if rows > chunk else rows


def slices(n: int, rows: int) -> Iterator[tuple[int, int]]:
    """Cut n images into runs of so many, the last maybe shorter: (start, stop)."""
    for start in range(0, n, rows):
        yield start, min(start + rows, n)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield what an iterator yields; a thread makes the next one meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, _END)
        while (item := following.result()) is not _END:
            following = thread.submit(next, items, _END)
            yield item
