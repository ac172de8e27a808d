"""Arrays of a store as a labelled, lazy dataset of xarray, and some of it chosen by place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from vitfeat.store.arrays import FINAL_NORM_GROUP
from vitfeat.store.stored_array import Picks, StoredArray


class _LazyArray(BackendArray):
    """An array of a store as xarray reads it: what is asked, when it is asked.

    float16 becomes float32: xarray sums float16 in float16, and a mean of thousands of images would
    be off in its first digits. NetCDF has none either.
    """

    def __init__(self, array: StoredArray) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, index: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self.array[index], dtype=self.dtype)


def to_dataset(
    features: Mapping[str, StoredArray],
    coordinates: Mapping[str, StoredArray],
    attributes: Mapping[str, str],
) -> xarray.Dataset:
    """Return a store's arrays; :meth:`FeatureStore.to_xarray` documents it."""
    variables = {plain_name(name): _lazy(array) for name, array in features.items()}
    labels = []
    for name, array in coordinates.items():
        group, _, own = name.rpartition("/")
        # Each group has the layers again; the final norm labels nothing.
        if group == FINAL_NORM_GROUP or (group and own == "layer"):
            continue
        values: NDArray[Any] = np.asarray(array[:])
        if values.dtype.kind == "T":  # which NetCDF does not know
            values = values.astype(object)
        variables[own] = xarray.Variable(array.dims, values)
        if own not in ("grid_shape", "token_start"):
            labels.append(own)
    return xarray.Dataset(variables, attrs=attributes).set_coords(labels)


def plain_name(name: str) -> str:
    """Return an array's name without the slash, which NetCDF and flat Zarr groups refuse."""
    return name.replace("/", ".")


def _lazy(array: StoredArray) -> xarray.Variable:
    attributes = {"description": array.description, "tap": array.tap}
    data = indexing.LazilyIndexedArray(_LazyArray(array))
    return xarray.Variable(array.dims, data, attributes)


def of_images(
    dataset: xarray.Dataset, rows: int | Picks, held: Mapping[str, NDArray[np.int64]]
) -> xarray.Dataset:
    """Return what a dataset has of an image, or of several in any order.

    `held` is by dimension of entries that are not one an image: the row of each, ascending.
    """
    chosen: dict[str, int | Picks] = {"image": rows}
    absent = ["image_bound"]  # where tokens started before some were chosen
    for dim, row_of in held.items():
        wanted = np.atleast_1d(rows)
        starts, stops = (np.searchsorted(row_of, wanted, side) for side in ("left", "right"))
        runs = [np.arange(a, b) for a, b in zip(starts, stops, strict=True)]
        places = np.concatenate(runs).astype(np.intp)
        if dim in ("region", "token") or not isinstance(rows, int):
            chosen[dim] = places
        elif len(places):
            chosen[dim] = int(places[0])
        else:  # of the one image that is chosen there is none
            absent.append(dim)
    return dataset.drop_dims(absent, errors="ignore").isel(chosen)
