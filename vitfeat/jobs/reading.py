"""Reading a store's arrays for an analysis, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.index import Index
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gram import Read
from vitfeat.store.reader import Entries, FeatureStore, read_rows
from vitfeat.store.stored_array import StoredArray

Item = TypeVar("Item")

_END: Any = object()


def shared_entries(
    store: FeatureStore, names: Sequence[str]
) -> tuple[NDArray[np.int64], dict[str, Entries]]:
    """Find the images that all of some arrays are of, since taps may be kept for some only.

    Their rows in the store, ascending, and by name where they stand in the array, None for all of
    it.
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
    """Return a function that reads some images of one layer: entries of the array, if given."""

    def read(start: int, stop: int) -> NDArray[Any]:
        return read_rows(store, name, start, stop, position, entries)

    return read


def one_position(store: FeatureStore, layer: str | int) -> int:
    """Return where a layer, by name or number, stands in a store's arrays."""
    places = store.layer_positions(layer)
    if len(places) != 1:
        raise AnalysisError(f"layer {layer!r}: one layer is needed, by name or number")
    return places[0]


def check_tokens(store: FeatureStore, used: str) -> None:
    """Raise unless a store has the spatial tokens of all images, which something is done by."""
    # Ragged arrays have entries for tokens instead of images, always of all of them.
    if "spatial" not in store or (store.is_limited("spatial") and not store.is_ragged):
        what = "of some images only" if "spatial" in store else "not stored"
        raise AnalysisError(
            f"{store.path}: spatial tokens {what} (it holds {store.held}), which {used}; extract "
            "the tap spatial of all images"
        )


def index_of(store: FeatureStore, path: Path) -> Index:
    """Read the index that a store was made from; one of other images is an error."""
    index = Index.read(path)
    if index.fingerprint != store.image_fingerprint:
        raise other_images(path, store)
    return index


def other_images(path: Path, store: FeatureStore) -> AnalysisError:
    """Make the error of an index that is not of a store's images."""
    return AnalysisError(
        f"{path} lists other images than {store.path} was made from: give the index of its "
        "dataset, or extract the store again"
    )


def rows_that_fit(array: StoredArray, max_bytes: int, extra: int = 0) -> int:
    """Return how many images of one layer fit into a bound: whole chunks, or less than one.

    ``extra`` are bytes an image that the caller needs beside the array's own.
    """
    rows = max(1, max_bytes // (prod(array.shape[2:]) * array.dtype.itemsize + extra))
    return whole_chunks(array, rows)


def whole_chunks(array: StoredArray, rows: int) -> int:
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
