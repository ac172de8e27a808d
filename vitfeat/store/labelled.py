"""A store as a labelled, lazy dataset of xarray, and images, classes and layers chosen by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from vitfeat.errors import StoreError
from vitfeat.models.layers import is_one_layer
from vitfeat.store.arrays import FINAL_NORM_GROUP
from vitfeat.store.layout import ATTRIBUTE
from vitfeat.store.stored_array import Picks, StoredArray
from vitfeat.text import nearest

if TYPE_CHECKING:
    from vitfeat.store.reader import FeatureStore, Images, Labels, Layers

# Names of classes that an error shows.
_SHOWN = 12


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


def to_dataset(store: FeatureStore) -> xarray.Dataset:
    """Return a store's arrays; :meth:`FeatureStore.to_xarray` documents it."""
    variables = {plain_name(name): _lazy(array) for name, array in store.items()}
    labels = []
    for name in store.coordinate_names:
        group, _, own = name.rpartition("/")
        # Each group has the layers again; the final norm labels nothing.
        if group == FINAL_NORM_GROUP or (group and own == "layer"):
            continue
        array = store.array(name)
        values: NDArray[Any] = np.asarray(array[:])
        if values.dtype.kind == "T":  # which NetCDF does not know
            values = values.astype(object)
        variables[own] = xarray.Variable(array.dims, values)
        if own not in ("grid_shape", "token_start"):
            labels.append(own)
    return xarray.Dataset(variables, attrs=_attributes(store)).set_coords(labels)


def plain_name(name: str) -> str:
    """Return an array's name without the slash, which NetCDF and flat Zarr groups refuse."""
    return name.replace("/", ".")


def _lazy(array: StoredArray) -> xarray.Variable:
    attributes = {"description": array.description, "tap": array.tap}
    data = indexing.LazilyIndexedArray(_LazyArray(array))
    return xarray.Variable(array.dims, data, attributes)


def _attributes(store: FeatureStore) -> dict[str, str]:
    """Return what NetCDF holds as well: texts, and all there is as JSON."""
    return {
        "model": store.model,
        "fingerprint": store.fingerprint,
        ATTRIBUTE: json.dumps(store.attributes, ensure_ascii=False),
    }


def select(
    store: FeatureStore, images: Images | None, labels: Labels | None, layers: Layers
) -> xarray.Dataset:
    """Return some of a store, lazy; :meth:`FeatureStore.sel` documents it."""
    dataset = to_dataset(store)
    positions = store.layer_positions(layers)
    chosen: dict[str, Any] = {"layer": positions[0] if is_one_layer(layers) else positions}
    if images is not None or labels is not None:
        rows = _rows(store, images, labels)
        absent = ["image_bound"]  # where tokens started before some were chosen
        for name in store:
            dim = store.entry_dim(name)
            places = rows if dim == "image" else _places(dim, store.rows(name), rows)
            if places is None:
                absent.append(dim)
            else:
                chosen[dim] = places
        dataset = dataset.drop_dims(absent, errors="ignore")
        chosen["image"] = rows
    return dataset.isel(chosen)


def _places(dim: str, held: NDArray[np.int64], rows: int | Picks) -> int | Picks | None:
    """Return where the entries of some images stand, None where an image that is chosen has none.

    Parameters
    ----------
    dim
        What the entries are.
    held
        The row of each, ascending.
    rows
        One image, or several in any order.
    """
    wanted = np.atleast_1d(rows)
    starts, stops = (np.searchsorted(held, wanted, side) for side in ("left", "right"))
    places = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
    if dim in ("region", "token") or not isinstance(rows, int):
        return places.astype(np.intp)
    return int(places[0]) if len(places) else None


def _rows(store: FeatureStore, images: Images | None, labels: Labels | None) -> int | Picks:
    """Return the rows of some images, in the order in which they were given."""
    if images is None:
        rows: int | Picks = np.arange(store.n_images)
    elif isinstance(images, slice):
        rows = np.arange(store.n_images)[images]
    elif isinstance(images, str) or np.ndim(images) == 0:
        rows = store.row(images)  # type: ignore[arg-type]
    elif np.asarray(images).dtype == bool:
        rows = np.arange(store.n_images)[np.asarray(images)]
    else:
        rows = np.asarray([store.row(image) for image in images], dtype=np.intp)  # type: ignore[union-attr]
    if labels is not None:
        rows = np.atleast_1d(rows)
        return rows[np.isin(store.labels[rows], _numbers(store, labels))]
    return rows


def _numbers(store: FeatureStore, labels: Labels) -> list[int]:
    """Return the numbers of classes by name or number; -1 is that of images without a label."""
    several = [labels] if isinstance(labels, str) or np.ndim(labels) == 0 else list(labels)  # type: ignore[arg-type]
    names = store.classes
    numbers: list[int] = []
    for label in several:
        known = [n for n, name in names.items() if name == label or n == label]
        if not known and label != -1:
            near = nearest(str(label), names.values())
            raise StoreError(f"{store.path}: no class {label!r}{near}; it has {_listed(names)}")
        numbers += known or [-1]
    return numbers


def _listed(names: Mapping[int, str]) -> str:
    if not names:
        return "no labels"
    shown = list(names.values())[:_SHOWN]
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more
