"""An empty store: its metadata, attributes and coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from vitfeat.final_norm import FinalNorm
from vitfeat.store import codec, provenance
from vitfeat.store.arrays import (
    FINAL_NORM_GROUP,
    SUMMARY_GROUP,
    ArraySpec,
    Geometry,
    group_of,
    rows_name,
)
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSION, Layout

if TYPE_CHECKING:
    from vitfeat.store.writer import Rows


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

    Parameters
    ----------
    partial
        Where it stands while it is written.
    layout, geometry, rows, request, model, weights, final_norm, normalised_by, notes
        As :func:`vitfeat.store.writer.open_writer` takes them.
    """
    group = zarr.create_group(partial, zarr_format=3)
    group.attrs[ATTRIBUTE] = {
        "format_version": FORMAT_VERSION,
        "fingerprint": provenance.fingerprint(request),
        "request": dict(request),
        "model": model,
        "weights": dict(weights),
        # Grids of different sizes stand in a coordinate.
        **({} if geometry.ragged else {"grid": list(geometry.grid)}),
        "has_cls": geometry.has_cls,
        "n_registers": geometry.n_registers,
        "has_branches": geometry.has_branches,
        **({"final_norm": _described(final_norm)} if final_norm is not None else {}),
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
    for array in layout.arrays:
        group.create_array(
            array.name,
            shape=(layout.length(array), *array.shape),
            dtype=array.dtype,
            chunks=layout.chunk_shape(array),
            shards=layout.shard_shape(array),
            serializer=codec.serializer(),
            compressors=codec.compressors(array.dtype),
            # A shard that is not there must not read as numbers.
            fill_value=float("nan"),
            dimension_names=array.dims,
            chunk_key_encoding={"name": "default", "separator": codec.SEPARATOR},
            attributes={
                "description": array.description,
                "tap": array.tap,
                # xarray's way to say which arrays label the images; a subgroup has none.
                **({"coordinates": "image_id label"} if _labelled(array) else {}),
            },
        )


def _described(norm: FinalNorm) -> dict[str, Any]:
    return {"kind": norm.kind, "eps": norm.eps, "pooled": norm.pooled}


def _labelled(array: ArraySpec) -> bool:
    return not group_of(array.name) and array.starts is None


def _entries(layout: Layout, rows: Rows) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Yield coordinates of arrays that have not one entry an image: name, dimensions, values."""
    found = {rows_name(a.name, a.dims[0]): a for a in layout.arrays if a.starts is not None}
    for name, array in found.items():
        if array.dims[0] == "token":
            yield name, "image_bound", np.asarray(array.starts, dtype=np.int64)
        else:
            yield name, array.dims[0], np.asarray(array.rows, dtype=np.int64)
    if rows.grid_shapes is not None:
        yield "grid_shape", "image axis", rows.grid_shapes
    if rows.regions is not None:
        yield "region", "region", rows.regions


def write_coordinate(group: zarr.Group, name: str, dims: str, values: NDArray[Any]) -> None:
    """Write a small array whole: one chunk, one file.

    Parameters
    ----------
    group, name
        Where it goes; what stands there is replaced.
    dims
        Names of its dimensions, spaces between.
    values
        Whole numbers, texts, or the parameters of a norm.
    """
    text = values.dtype.kind == "T"
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=str if text else values.dtype,
        chunks=tuple(max(1, n) for n in values.shape),
        compressors=(codec.compressors("uint8") if text else codec.compressors(str(values.dtype))),
        dimension_names=dims.split(),
        chunk_key_encoding={"name": "default", "separator": codec.SEPARATOR},
        overwrite=True,
        # Zarr leaves out a chunk of zeros, and an absent chunk reads as zeros.
        config={"write_empty_chunks": True},
    )
    array[:] = values
