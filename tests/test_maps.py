from __future__ import annotations

import gc
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from vitfeat.analyses.attention.map_file import (
    AttentionMaps,
    dimensions,
    read_maps,
    write_maps,
)
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.errors import AnalysisError

TOKENS = Tokens((2, 3), n_registers=1)
SIZES = {"class": 2, "layer": 2, "head": 3, "key": 8, "y": 2, "x": 3, "dy": 3, "dx": 5}
NAMES = (
    "all_queries",
    "cls_query",
    "spatial_queries",
    "spatial_queries_renormalised",
    "aligned",
    "aligned_by_coverage",
    "cls_query_by_class",
    "spatial_queries_renormalised_by_class",
    "cls_query_class_deviation",
    "cls_rollout",
)


def maps(**changes: Any) -> AttentionMaps:
    generator = np.random.default_rng(0)
    arrays = {name: generator.random([SIZES[d] for d in dimensions(name)]) for name in NAMES}
    arrays["aligned"][0, 1] = np.nan
    fields = {
        "model": "m",
        "dataset": "d",
        "n_images": 11,
        "tokens": TOKENS,
        "null_rows": "exclude",
        "layers": (3, 5),
        "arrays": arrays,
        "classes": {2: "héron", 70: "白鷺"},
        "n_images_rollout": 4,
    }
    return AttentionMaps(**(fields | changes))


def test_what_xarray_opens(tmp_path: Path) -> None:
    """Names, dimensions, coordinates and attributes as docs/results.md says."""
    path, written = tmp_path / "a" / "m.nc", maps()
    write_maps(path, written)
    with xarray.open_dataset(path, engine="scipy") as dataset:
        assert set(dataset.data_vars) == set(NAMES)
        for name, values in written.arrays.items():
            assert dataset[name].dims == dimensions(name)
            np.testing.assert_array_equal(dataset[name].values, values.astype(np.float32))
            assert dataset[name].attrs["units"] == "share of attention"
            assert dataset[name].attrs["long_name"]
        assert dict(dataset.sizes) == SIZES
        for name, values in {
            "layer": [3, 5],
            "head": [0, 1, 2],
            "dy": [-1, 0, 1],
            "dx": [-2, -1, 0, 1, 2],
            "class": [2, 70],
            "class_name": ["héron", "白鷺"],
        }.items():
            assert dataset.coords[name].values.tolist() == values
        assert dataset["class_name"].dims == ("class",)
        assert dataset.attrs == {
            "model": "m",
            "dataset": "d",
            "n_images": 11,
            "n_registers": 1,
            "has_cls": 1,
            "grid_rows": 2,
            "grid_columns": 3,
            "null_rows": "exclude",
            "n_images_rollout": 4,
        }
    read = read_maps(path, [*NAMES, "absent"])
    assert replace(read, arrays={}, n_images_rollout=4) == replace(written, arrays={})
    assert set(read.arrays) == set(NAMES)
    for name, values in read.arrays.items():
        np.testing.assert_array_equal(values, written.arrays[name].astype(np.float32))


def test_dimensions() -> None:
    assert dimensions("aligned") == ("layer", "head", "dy", "dx")
    assert dimensions("cls_rollout") == ("y", "x")
    assert dimensions("cls_query_by_class") == ("class", "layer", "head", "key")
    renormalised = "spatial_queries_renormalised"
    assert dimensions(f"{renormalised}_class_deviation") == ("layer", "head", "y", "x")


def test_without_classes_and_rollout(tmp_path: Path) -> None:
    names = ("spatial_queries", "aligned")
    full = maps()
    few = maps(arrays={n: full.arrays[n] for n in names}, classes={}, n_images_rollout=0)
    write_maps(tmp_path / "m.nc", few)
    with xarray.open_dataset(tmp_path / "m.nc", engine="scipy") as dataset:
        assert set(dataset.data_vars) == set(names)
        assert set(dataset.coords) == {"layer", "head", "dy", "dx"}
        assert "n_images_rollout" not in dataset.attrs


def test_equal_maps_become_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_maps(tmp_path / name, maps())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.filterwarnings("ignore:Cannot close a netcdf_file")
def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.nc"
    with pytest.raises(AnalysisError, match=r"no attention maps .*compute them first"):
        read_maps(path, NAMES)
    write_maps(path, maps())
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:40], whole[: len(whole) // 3], whole[:-4]):
        path.write_bytes(content)
        with pytest.raises(AnalysisError, match="no whole NetCDF file") as caught:
            read_maps(path, NAMES)
        assert "\n" not in str(caught.value)
    del caught
    gc.collect()  # while what scipy warns of half-read files is ignored
    xarray.Dataset({"aligned": ("x", [1.0])}).to_netcdf(path, engine="scipy")
    with pytest.raises(AnalysisError, match="no spatial_queries and no layer"):
        read_maps(path, NAMES)
    with xarray.open_dataset(io.BytesIO(whole), engine="scipy") as other:
        del other.attrs["grid_rows"]
        other.to_netcdf(path, engine="scipy")
    with pytest.raises(AnalysisError, match="it has no grid_rows; compute it anew"):
        read_maps(path, NAMES)


def test_a_label_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="label 2147483648 does not fit"):
        write_maps(tmp_path / "m.nc", maps(classes={1: "a", 2**31: "b"}))
    assert not list(tmp_path.iterdir())
