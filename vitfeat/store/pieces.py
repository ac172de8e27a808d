"""Pieces of a store's arrays, decoded: some rows, or the tokens of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vitfeat.store.reader import FeatureStore

Entries = NDArray[np.intp] | None
"""Which of an array's entries are meant, by their place along its first dimension; None is all."""


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
    rows = slice(start, stop) if entries is None else entries[start:stop]
    layers = slice(None) if position is None else position
    return np.asarray(store[name][rows, layers])


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
