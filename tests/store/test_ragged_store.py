"""Stores of grids of different sizes and of regions: written, interrupted, read, damaged."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray

from tests.store.filled import GEOMETRY, Content, copied, files, shard_of
from vitfeat.data.views import DenseView
from vitfeat.errors import StoreError
from vitfeat.jobs.features import image_features
from vitfeat.store.info import describe
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.reader import FeatureStore, image_tokens
from vitfeat.store.verify import verify

# Of 22 images in blocks of 8.
GRIDS = np.array([[2 + i % 3, 3 + i % 4] for i in range(22)])
TOKEN_STARTS = (0, *np.cumsum(GRIDS.prod(1)).tolist())
# None of the first image, many of the last, none of the whole middle block.
COUNTS = [0, 2, 1, 0, 0, 5, 0, 1, *[0] * 8, 3, 0, 0, 0, 1, 7]
REGION_STARTS = (0, *np.cumsum(COUNTS).tolist())
RAGGED = Content(
    geometry=replace(GEOMETRY, ragged=True),
    taps=("cls", "registers", "spatial", "regions"),
    starts={"spatial": TOKEN_STARTS, "regions": REGION_STARTS},
    grid_shapes=GRIDS,
    regions=np.arange(20) * 2 + 5,
)
SQUARE = replace(RAGGED, geometry=GEOMETRY, starts={"regions": REGION_STARTS}, grid_shapes=None)


@pytest.fixture(scope="module", params=["ragged", "square"])
def content(request: pytest.FixtureRequest) -> Content:
    return RAGGED if request.param == "ragged" else SQUARE


@pytest.fixture(scope="module")
def whole(content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ragged") / "m.zarr"
    content.write(path)
    return path


@pytest.fixture
def store(whole: Path) -> FeatureStore:
    return open_store(whole)


@pytest.fixture
def ragged(tmp_path: Path) -> FeatureStore:
    RAGGED.write(tmp_path / "r.zarr")
    return open_store(tmp_path / "r.zarr")


def test_what_goes_in_comes_out_bit_for_bit(content: Content, store: FeatureStore) -> None:
    for name, values in content.arrays().items():
        assert np.array_equal(store[name][:], values), name
    assert verify(store.path)[1] == []


def test_whose_the_entries_are(store: FeatureStore) -> None:
    assert store.rows("cls").tolist() == list(range(22))
    assert store.rows("regions").tolist() == [i for i, n in enumerate(COUNTS) for _ in range(n)]
    assert store.region_numbers.tolist() == list(range(5, 45, 2))
    assert store.is_limited("regions")


def test_tokens_of_an_image_by_row_or_id_and_layer(content: Content, store: FeatureStore) -> None:
    for row in (0, 5, 21):
        expected = image_tokens(store, row, 1)
        layer = store.layers[1]
        np.testing.assert_array_equal(store.tokens(row, layer), expected)
        np.testing.assert_array_equal(store.tokens(store.image_ids[row], layer), expected)
    np.testing.assert_array_equal(store.tokens(-1), image_tokens(store, 21, 2))
    assert store.tokens(3).shape == (*store.grid_shapes[3], content.geometry.width)


@pytest.mark.parametrize(
    ("image", "layer", "message"),
    [
        (22, "last", "no row 22; it has 22 images"),
        ("class 0/ï000.pn", "last", "no image .*did you mean 'class 0/ï000.png'"),
        (0, 2, "layer 2 is not stored"),
        (0, "all", "one layer at a time"),
    ],
)
def test_tokens_that_are_not_there(
    store: FeatureStore, image: int | str, layer: int | str, message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        store.tokens(image, layer)


def test_tokens_of_one_image(content: Content, store: FeatureStore) -> None:
    spatial = content.arrays()["spatial"]
    for row in range(22):
        for position in range(3):
            found = image_tokens(store, row, position)
            if content.geometry.ragged:
                y, x = GRIDS[row]
                flat = spatial[TOKEN_STARTS[row] : TOKEN_STARTS[row + 1], position]
                for i in range(y):
                    for j in range(x):
                        assert np.array_equal(found[i, j], flat[i * x + j])
                assert found.shape == (y, x, 8)
            else:
                assert np.array_equal(found, spatial[row, position])


def test_means_of_tokens(content: Content, store: FeatureStore) -> None:
    used = np.array([3, 21, 4])
    for chosen in (None, used):
        found = image_features(store, "mean", 1, chosen)
        rows = range(22) if chosen is None else chosen
        expected = [image_tokens(store, row, 1).astype(np.float64).mean((0, 1)) for row in rows]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_grids_and_view(ragged: FeatureStore) -> None:
    assert ragged.is_ragged
    assert np.array_equal(ragged.grid_shapes, GRIDS)
    assert ragged.token_start.tolist() == list(TOKEN_STARTS)
    assert ragged.rows("spatial")[[0, 5, 6, -1]].tolist() == [0, 0, 1, 21]
    assert ragged.view == DenseView("short", 32, (4, 4))
    with pytest.raises(StoreError, match=r"grids of different sizes; use grid_shapes"):
        _ = ragged.grid


def test_a_store_of_one_grid_tells_it_for_every_image(tmp_path: Path) -> None:
    SQUARE.write(tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert not store.is_ragged
    assert store.grid == (2, 3)
    assert store.grid_shapes.tolist() == [[2, 3]] * 22


@pytest.mark.parametrize("first", [[], [2], [1, 0], [0, 1, 2]])
def test_a_resumed_store_has_the_bytes_of_an_uninterrupted_one(
    content: Content, whole: Path, tmp_path: Path, first: list[int]
) -> None:
    path = tmp_path / "m.zarr"
    content.write(path, first, seal=False)
    assert partial_path(path).exists()
    missing, manifest = content.write(path)
    assert missing == [block for block in range(3) if block not in first]
    assert manifest is not None
    found, expected = files(path), files(whole)
    assert {n: v for n, v in found.items() if v != expected[n]} == {}
    assert found.keys() == expected.keys()


def test_xarray_labels_tokens_and_regions(content: Content, store: FeatureStore) -> None:
    dataset = store.to_xarray()
    assert dataset["regions"].dims == ("region", "layer", "channel")
    assert dataset["region"].values.tolist() == store.region_numbers.tolist()
    # A coordinate, to group regions by.
    assert dataset["regions"].coords["region_image"].values.tolist() == (
        store.rows("regions").tolist()
    )
    if content.geometry.ragged:
        assert dataset["spatial"].dims == ("token", "layer", "channel")
        assert dataset["grid_shape"].values.tolist() == GRIDS.tolist()


def test_plain_xarray_opens_it_without_a_warning(whole: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(whole) as dataset:
            assert {"cls", "registers", "spatial", "regions"} <= set(dataset.data_vars)


def test_description(ragged: FeatureStore) -> None:
    text = "\n".join(describe(ragged))
    assert "grids        2 x 3 to 4 x 6 tokens, an own one for each image" in text
    assert "(region 20, layer 3, channel 8)" in text


@pytest.mark.parametrize("name", ["grid_shape", "token_start", "region", "region_image"])
def test_what_is_absent_is_told_on_opening(ragged: FeatureStore, tmp_path: Path, name: str) -> None:
    path = copied(ragged.path, tmp_path / "m.zarr")
    shard_of(path, name).unlink()
    with pytest.raises(StoreError, match=rf"{name}/c\.0.* is missing"):
        open_store(path)


def test_a_torch_dataset_of_tokens_is_refused(ragged: FeatureStore) -> None:
    with pytest.raises(StoreError, match="spatial"):
        ragged.torch_dataset(("spatial",))
    assert len(ragged.torch_dataset(("cls",))) == 22
