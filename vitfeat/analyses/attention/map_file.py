"""Attention maps averaged over images, as a NetCDF file: what writes it and what reads it.

NetCDF 3 through xarray's scipy engine: ``xarray.open_dataset(path, engine="scipy")`` opens a file.
docs/results.md lists what stands in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import Tokens
from vitfeat.errors import AnalysisError
from vitfeat.files import replacing

TOKEN_MAPS: Mapping[str, tuple[str, ...]] = {
    "all_queries": ("key",),
    "cls_query": ("key",),
    "spatial_queries": ("key",),
    "spatial_queries_renormalised": ("y", "x"),
}
"""Attention on each token: the maps that there are by class too, with their last dimensions."""

OFFSET_MAPS: Mapping[str, tuple[str, ...]] = {
    "aligned": ("dy", "dx"),
    "aligned_by_coverage": ("dy", "dx"),
}
"""Attention on each offset from the query, with their last dimensions."""

ROLLOUT = "cls_rollout"
"""Attention rollout of the CLS token, (y, x), where attention itself is stored."""

BY_CLASS, CLASS_DEVIATION = "_by_class", "_class_deviation"
"""What follows a token map's name: means of each class, and their deviation over classes."""

# What readers of a file rely on: variables, and attributes of the file.
_NEEDED = (
    *("spatial_queries", "aligned", "layer"),
    *("model", "dataset", "n_images", "n_registers", "has_cls"),
    *("grid_rows", "grid_columns", "null_rows"),
)

_LONG_NAMES = {
    "all_queries": "attention on each token, mean over all queries",
    "cls_query": "attention of the CLS token on each token",
    "spatial_queries": "attention on each token, mean over spatial queries",
    "spatial_queries_renormalised": "attention on each spatial token, mean over spatial queries, "
    "rows renormalised over spatial keys",
    "aligned": "renormalised attention by offset from query to key, mean over spatial queries",
    "aligned_by_coverage": "renormalised attention by offset from query to key, mean over the "
    "spatial queries that have a key there",
    ROLLOUT: "attention rollout of the CLS token on the last layer over spatial tokens",
}


@dataclass(frozen=True)
class AttentionMaps:
    """Maps of one model, averaged over the images of one dataset."""

    model: str
    dataset: str
    n_images: int
    tokens: Tokens
    null_rows: str  # what became of rows without spatial attention
    layers: tuple[int, ...]
    # By the file's names, without layers that are not stored: maps (layer, head, ...), those by
    # class (class, layer, head, ...), and ``cls_rollout``.
    arrays: Mapping[str, NDArray[Any]]
    # Name by label, in the order of the arrays by class; empty where there are none.
    classes: Mapping[int, str] = field(default_factory=dict)
    n_images_rollout: int = 0  # number of images that ``cls_rollout`` is of


def dimensions(name: str) -> tuple[str, ...]:
    """Return the dimensions of a variable of a file of maps, by its name."""
    if name == ROLLOUT:
        return "y", "x"
    for ending, first in ((BY_CLASS, ("class",)), (CLASS_DEVIATION, ())):
        if name.endswith(ending):
            return (*first, "layer", "head", *TOKEN_MAPS[name.removesuffix(ending)])
    return ("layer", "head", *{**TOKEN_MAPS, **OFFSET_MAPS}[name])


def write_maps(path: Path, maps: AttentionMaps) -> None:
    """Write maps as float32; equal maps become equal bytes."""
    import xarray

    rows, columns = maps.tokens.grid
    heads = next(a.shape[dimensions(n).index("head")] for n, a in maps.arrays.items())
    coordinates: dict[str, Any] = {
        "layer": np.asarray(maps.layers, dtype=np.int32),
        "head": np.arange(heads, dtype=np.int32),
        "dy": ("dy", np.arange(1 - rows, rows, dtype=np.int32), {"units": "patches"}),
        "dx": ("dx", np.arange(1 - columns, columns, dtype=np.int32), {"units": "patches"}),
    }
    if maps.classes:
        coordinates["class"] = _labels(path, maps.classes)
        coordinates["class_name"] = ("class", np.array(list(maps.classes.values()), dtype=object))
    dataset = xarray.Dataset(
        {
            name: (
                dimensions(name),
                np.asarray(values, dtype=np.float32),
                {"long_name": _long_name(name), "units": "share of attention"},
            )
            for name, values in maps.arrays.items()
        },
        coordinates,
        {
            "model": maps.model,
            "dataset": maps.dataset,
            "n_images": maps.n_images,
            "n_registers": maps.tokens.n_registers,
            "has_cls": int(maps.tokens.has_cls),
            "grid_rows": rows,
            "grid_columns": columns,
            "null_rows": maps.null_rows,
            **({"n_images_rollout": maps.n_images_rollout} if ROLLOUT in maps.arrays else {}),
        },
    )
    with replacing(path) as partial:
        # NaN is written as it is; nothing else stands for a value that is not there.
        encoding = {str(name): {"_FillValue": None} for name in dataset.variables}
        dataset.to_netcdf(partial, engine="scipy", format="NETCDF3_64BIT", encoding=encoding)


def read_maps(path: Path, names: Iterable[str]) -> AttentionMaps:
    """Read the named maps of a file by :func:`write_maps`, as far as it has them."""
    import xarray

    again = "compute it anew (vitfeat run attention)"
    try:
        dataset = xarray.open_dataset(path, engine="scipy")
    except FileNotFoundError as error:
        raise AnalysisError(
            f"no attention maps {path}; compute them first (vitfeat run attention)"
        ) from error
    except Exception as error:  # a damaged header ends in whatever scipy stumbles over
        raise AnalysisError(f"{path} is no whole NetCDF file of attention maps; {again}") from error
    with dataset:
        there, about = {*dataset.variables, *dataset.attrs}, dataset.attrs
        if absent := [name for name in _NEEDED if name not in there]:
            raise AnalysisError(
                f"{path} is no file of attention maps: it has no {' and no '.join(absent)}; {again}"
            )
        classes = {}
        if "class" in there:
            labels, texts = dataset["class"].values, dataset["class_name"].values
            classes = {int(label): str(text) for label, text in zip(labels, texts, strict=True)}
        return AttentionMaps(
            model=str(about["model"]),
            dataset=str(about["dataset"]),
            n_images=int(about["n_images"]),
            tokens=Tokens(
                (int(about["grid_rows"]), int(about["grid_columns"])),
                bool(about["has_cls"]),
                int(about["n_registers"]),
            ),
            null_rows=str(about["null_rows"]),
            layers=tuple(int(layer) for layer in dataset["layer"].values),
            arrays={name: dataset[name].values for name in names if name in dataset.variables},
            classes=classes,
        )


def _labels(path: Path, classes: Mapping[int, str]) -> NDArray[np.int32]:
    labels = np.array(list(classes), dtype=np.int64)
    if labels.max() > np.iinfo(np.int32).max:
        raise AnalysisError(
            f"{path}: label {labels.max()} does not fit a NetCDF 3 file; use labels below 2^31, "
            "or leave out the averages by class"
        )
    return labels.astype(np.int32)


def _long_name(name: str) -> str:
    for ending, text in (
        (BY_CLASS, ", by class"),
        (CLASS_DEVIATION, ", standard deviation over classes (ddof 1)"),
    ):
        if name.endswith(ending):
            return _LONG_NAMES[name.removesuffix(ending)] + text
    return _LONG_NAMES[name]
