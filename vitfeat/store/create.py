"""An empty store: its metadata, attributes and coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from vitfeat.final_norm import FinalNorm
from vitfeat.store import provenance
from vitfeat.store.arrays import FINAL_NORM_GROUP, SUMMARY_GROUP, Geometry, group_of, rows_name
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSION, SEPARATOR, Layout
from vitfeat.store.shards import compressors, serializer

_KEYS: dict[str, Any] = {"name": "default", "separator": SEPARATOR}


@dataclass(frozen=True)
class Rows:
    """What the rows of a store are."""

    #: Path of each image relative to the dataset's root.
    image_id: Sequence[str]
    #: int64 (image,); -1 without a label.
    label: NDArray[np.int64]
    #: Name of each label that is there.
    classes: Mapping[int, str]
    #: (image id, reason) of images that were left out.
    skipped: Sequence[tuple[str, str]]
    #: int64 (image, 2): rows and columns of each image's token grid, where they differ.
    grid_shapes: NDArray[np.int64] | None = None
    #: int64 (region,): which of the dataset's regions the entries of ``regions`` are, if any.
    regions: NDArray[np.int64] | None = None


def create(
    partial: Path,
    layout: Layout,
    geometry: Geometry,
    rows: Rows,
    request: Mapping[str, Any],
    model: str,
    weights: Mapping[str, Any],
    final_norm: FinalNorm | None,
    normalised_by: str,
    notes: Sequence[str],
) -> None:
    """Make a store's group, coordinates and arrays, whose shards are all absent.

    :func:`vitfeat.store.writer.open_writer` says what it is made from.
    """
    group = zarr.create_group(partial, zarr_format=3)
    group.attrs[ATTRIBUTE] = {
        "format_version": FORMAT_VERSION,
        "fingerprint": provenance.digest(request),
        "request": dict(request),
        "model": model,
        "weights": dict(weights),
        # Grids of different sizes stand in a coordinate.
        **({} if geometry.ragged else {"grid": list(geometry.grid)}),
        "has_cls": geometry.has_cls,
        "n_registers": geometry.n_registers,
        "has_branches": geometry.has_branches,
        **({} if final_norm is None else {"final_norm": final_norm.described}),
        "classes": {str(label): name for label, name in rows.classes.items()},
        "skipped": [list(s) for s in rows.skipped],
        "normalised_by": normalised_by,
        "notes": list(notes),
        "versions": provenance.versions(),
    }
    layers = np.asarray(geometry.layers, dtype=np.int64)
    write_coordinate(
        group, "image_id", "image", np.asarray(rows.image_id, dtype=np.dtypes.StringDType())
    )
    write_coordinate(group, "label", "image", rows.label)
    write_coordinate(group, "layer", "layer", layers)
    for name in dict.fromkeys(group_of(a.name) for a in layout.arrays):
        if name:
            write_coordinate(group.create_group(name), "layer", "layer", layers)
        if name == SUMMARY_GROUP:
            for axis, n in zip(("dy", "dx"), geometry.grid, strict=True):
                write_coordinate(group, f"{name}/{axis}", axis, np.arange(1 - n, n, dtype=np.int64))
    for name, dims, numbers in _entries(layout, rows):
        write_coordinate(group, name, dims, numbers)
    if final_norm is not None:
        group.create_group(FINAL_NORM_GROUP)
        for name, channels in (("scale", final_norm.scale), ("shift", final_norm.shift)):
            write_coordinate(group, f"{FINAL_NORM_GROUP}/{name}", "channel", channels)
    labels = {"coordinates": "image_id label"}
    for array in layout.arrays:
        group.create_array(
            array.name,
            shape=(layout.length(array), *array.shape),
            dtype=array.dtype,
            chunks=layout.chunk_shape(array),
            shards=layout.shard_shape(array),
            serializer=serializer(),
            compressors=compressors(array.dtype),
            # A shard that is not there must not read as numbers.
            fill_value=float("nan"),
            dimension_names=array.dims,
            chunk_key_encoding=_KEYS,
            attributes={
                "description": array.description,
                "tap": array.tap,
                # xarray's way to say which arrays label the images; a subgroup has none.
                **(labels if not group_of(array.name) and array.starts is None else {}),
            },
        )


def _entries(layout: Layout, rows: Rows) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Yield coordinates of arrays that have not one entry an image: name, dimensions, values."""
    arrays = {rows_name(a.name, a.dims[0]): a for a in layout.arrays if a.starts is not None}
    for name, array in arrays.items():
        if array.dims[0] == "token":
            yield name, "image_bound", np.asarray(array.starts, dtype=np.int64)
        else:
            yield name, array.dims[0], np.asarray(array.rows, dtype=np.int64)
    if rows.grid_shapes is not None:
        yield "grid_shape", "image axis", rows.grid_shapes
    if rows.regions is not None:
        yield "region", "region", rows.regions


def write_coordinate(group: zarr.Group, name: str, dims: str, values: NDArray[Any]) -> None:
    """Write a small array whole, one chunk in one file, with dimensions named by words.

    Whole numbers, texts, or the parameters of a norm; what stands there is replaced.
    """
    text = values.dtype.kind == "T"
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=str if text else values.dtype,
        chunks=tuple(max(1, n) for n in values.shape),
        compressors=compressors("uint8" if text else str(values.dtype)),
        dimension_names=dims.split(),
        chunk_key_encoding=_KEYS,
        overwrite=True,
        # Zarr leaves out a chunk of zeros, and an absent chunk reads as zeros.
        config={"write_empty_chunks": True},
    )
    array[:] = values
