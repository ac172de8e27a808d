"""Reading a store's arrays for an analysis, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from vitfeat.analysis.gram import Read
from vitfeat.errors import StoreError
from vitfeat.store.reader import FeatureStore


def reader(store: FeatureStore, name: str, position: int) -> Read:
    """Return a function that reads some images of one layer.

    Parameters
    ----------
    store, name, position
        The array, and where the layer stands in it.

    Returns
    -------
    Read
        Raises a StoreError where a chunk is damaged.
    """

    def read(start: int, stop: int) -> NDArray[Any]:
        return read_rows(store, name, start, stop, position)

    return read


def read_rows(
    store: FeatureStore, name: str, start: int, stop: int, position: int | None = None
) -> NDArray[Any]:
    """Read rows start:stop of an array, of all layers or of one.

    Raises
    ------
    StoreError
        A chunk is damaged.
    """
    array = store[name]
    try:
        rows = array[start:stop] if position is None else array[start:stop, position]
        return np.asarray(rows)
    except Exception as error:  # each codec raises its own class
        raise StoreError(
            f"{store.path}: images {start} to {stop - 1} of {name} cannot be decoded "
            f"({str(error).splitlines()[0]}); remove the store and extract it again"
        ) from error


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
