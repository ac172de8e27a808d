"""Images in HDF5 files: an array of pixels (uint8), or of encoded images (bytes of any length)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vitfeat.data.containers import (
    FOLDER,
    PLACE,
    Found,
    broken,
    containers_of,
    listing_of,
    opened,
    pixels_file,
    shown,
    the_only,
)
from vitfeat.data.folders import Tally
from vitfeat.data.index import Place
from vitfeat.data.listing import Listing
from vitfeat.data.spec import DatasetSpec

_CHW = "CHW:"


def find(spec: DatasetSpec, tally: Tally) -> Listing:
    """List the images of all files, in the order of the files and of their arrays."""
    found: list[Found] = []
    for container in containers_of(spec):
        try:
            with _open(spec.root / container) as file:
                found += _of(spec, container, file)
        except (OSError, RuntimeError, KeyError) as error:
            raise broken(spec, container, error) from None
    return listing_of(spec, found, ordered=True)


def read(path: Path, place: Place) -> bytes:
    """Read an image of an array."""
    name = place.part.removeprefix(_CHW)
    value = opened(_open, path)[name][place.offset]
    pixels = np.asarray(value)
    if pixels.ndim == 1:
        return pixels.tobytes()
    return pixels_file(pixels.transpose(1, 2, 0) if name != place.part else pixels)


def _open(path: Path) -> Any:
    import h5py

    # Locks are refused by many shared file systems, and nothing is written.
    return h5py.File(path, "r", locking=False)


def _of(spec: DatasetSpec, container: str, file: Any) -> list[Found]:
    called = shown(spec, container)
    arrays = _arrays(file)
    images = the_only(spec, "images", container, [*arrays], [n for n in arrays if _fits(arrays[n])])
    array = arrays[images]
    if not _fits(array):
        raise spec.error(
            "images",
            f"{called}: {images} is {array.dtype} of shape {array.shape}; expected uint8 of shape "
            "(image, height, width, 1 or 3), (image, height, width), or encoded images",
        )
    chw = spec.axes == "CHW"
    if array.ndim == 4 and array.shape[1 if chw else 3] not in (1, 3):
        raise spec.error(
            "axes",
            f"{called}: {images} of shape {array.shape} has no 1 or 3 channels on its "
            f"{'second' if chw else 'last'} axis; set axes: {'HWC' if chw else 'CHW'}?",
        )
    columns: dict[str, list[str]] = {}
    for key, besides in (("labels", FOLDER), ("ids", PLACE)):
        if (given := getattr(spec, key)) in (None, besides):
            continue
        values = arrays[the_only(spec, key, container, [*arrays], [])][()]
        if len(values) != len(array) or values.ndim != 1:
            raise spec.error(key, f"{called}: {given} has not one value for each of {images}")
        columns[key] = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    part = f"{_CHW if chw and array.ndim == 4 else ''}{images}"
    return [
        Found(
            columns["ids"][row] if "ids" in columns else None,
            f"{called}#row={row}",
            columns["labels"][row] if "labels" in columns else None,
            Place(container, part, row),
        )
        for row in range(len(array))
    ]


def _arrays(file: Any) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(visit)
    return found


def _fits(array: Any) -> bool:
    """Whether an array can be one of images."""
    import h5py

    encoded = h5py.check_vlen_dtype(array.dtype) == np.uint8
    return (array.ndim == 1 and encoded) or (array.ndim in (3, 4) and array.dtype == np.uint8)
