"""What a person does with a store in a notebook: look at it, choose by name, export."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import vitfeat
from tests.store.filled import N_IMAGES, Content, resealed
from tests.store.test_ragged_store import COUNTS, RAGGED
from vitfeat.errors import ConfigError, StoreError
from vitfeat.store.reader import FeatureStore
from vitfeat.store.writer import open_writer

CONTENT = Content()
IDS = CONTENT.rows.image_id
LABELS = CONTENT.rows.label
LIMITED = Content(taps=("cls", "attention"), kept={"attention": (1, 9, 20)})


@pytest.fixture
def store(written: Path) -> FeatureStore:
    return vitfeat.open(written)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("limited") / "m.zarr"
    LIMITED.write(path)
    return vitfeat.open(path)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("ragged") / "m.zarr"
    RAGGED.write(path)
    return vitfeat.open(path)


# --- A mapping ---


def test_a_store_is_a_mapping_of_names_to_arrays(store: FeatureStore) -> None:
    names = list(CONTENT.arrays())
    assert isinstance(store, Mapping)
    assert list(store) == list(store.keys()) == names
    assert len(store) == len(names)
    assert [array.name for array in store.values()] == names
    assert {name: array.shape for name, array in store.items()} == {
        name: values.shape for name, values in CONTENT.arrays().items()
    }
    assert "cls" in store
    assert "nothing" not in store
    assert 3 not in store
    assert store.get("nothing") is None
    assert store.get("cls") is store["cls"]
    assert store
    assert store == store
    assert store != vitfeat.open(store.path)
    assert len({store, vitfeat.open(store.path)}) == 2


@pytest.mark.parametrize("name", ["clss", "attention_summary.entropy", "", 3, None, ["cls"]])
def test_an_unknown_name_is_one_line(store: FeatureStore, name: Any) -> None:
    with pytest.raises(StoreError) as info:
        store[name]
    message = str(info.value)
    assert "\n" not in message
    assert f"no array {name!r}" in message
    for wrong, near in (
        ("clss", "cls"),
        ("attention_summary.entropy", "attention_summary/entropy"),
    ):
        assert name != wrong or f"(did you mean {near!r}?)" in message


# --- Layers ---


@pytest.mark.parametrize(
    ("wanted", "positions"),
    [
        (-1, [2]),
        (-3, [0]),
        (np.int64(-2), [1]),
        (np.int64(3), [1]),
        ([-1, 1], [0, 2]),
        (("first", -1), [0, 2]),
        (np.array([1, 4]), [0, 2]),
        (range(3, 5), [1, 2]),
        ("q1", [0]),
        ("q3", [1]),
    ],
)
def test_layers_count_from_the_end_too(
    store: FeatureStore, wanted: Any, positions: list[int]
) -> None:
    expected = CONTENT.arrays()["cls"]
    assert store.layer_positions(wanted) == positions
    single = np.ndim(wanted) == 0 if not isinstance(wanted, range) else False
    values = store.sel(layer=wanted)["cls"].values
    assert np.array_equal(values, expected[:, positions[0] if single else positions])
    item = store.torch_dataset("cls", wanted)[4]["cls"].numpy()
    assert np.array_equal(item, expected[4, positions[0] if single else positions])
    if single:
        tokens = store.tokens(3, wanted)
        assert np.array_equal(tokens, CONTENT.arrays()["spatial"][3, positions[0]])


@pytest.mark.parametrize("wanted", ["all", "spread"])
def test_a_name_of_several_layers_gives_all_of_them(store: FeatureStore, wanted: str) -> None:
    expected = CONTENT.arrays()["cls"]
    assert np.array_equal(store.sel(layer=wanted)["cls"].values, expected)
    assert np.array_equal(store.torch_dataset("cls", wanted)[4]["cls"].numpy(), expected[4])


def test_layers_that_are_not_there_are_one_line(store: FeatureStore) -> None:
    for layer in (-4, 0, 2, 99):
        with pytest.raises(StoreError, match=rf"layer {layer} is not stored; it has \[1, 3, 4\]"):
            store.sel(layer=layer)
    with pytest.raises(ConfigError, match=r"found 'lst' \(did you mean 'last'\?\)"):
        store.torch_dataset("cls", "lst")


# --- Choosing ---


def test_an_image_and_a_layer_by_name(store: FeatureStore) -> None:
    found = store.sel(image=IDS[5], layer="last")["cls"]
    assert found.dims == ("channel",)
    assert np.array_equal(found.values, CONTENT.arrays()["cls"][5, 2])
    assert (str(found["image_id"].values), int(found["layer"]), int(found["label"])) == (
        *(IDS[5], 4),
        LABELS[5],
    )


@pytest.mark.parametrize(
    ("image", "rows"),
    [
        (5, 5),
        (-1, 21),
        (np.int64(3), 3),
        ([IDS[20], IDS[2]], [20, 2]),
        ([20, -20], [20, 2]),
        (np.array([4, 4]), [4, 4]),
        (slice(3, 6), [3, 4, 5]),
        (np.arange(22) > 19, [20, 21]),
        (range(2), [0, 1]),
        ([], []),
    ],
)
def test_images_are_chosen_in_the_order_that_is_given(
    store: FeatureStore, image: Any, rows: Any
) -> None:
    found = store.sel(image=image)
    for name, values in CONTENT.arrays().items():
        assert np.array_equal(found[name.replace("/", ".")].values, values[rows])
    ids = found["image_id"].values
    assert np.array_equal(ids, np.array(IDS, dtype=object)[rows])


@pytest.mark.parametrize(
    ("label", "numbers"),
    [("class 1", [1]), (0, [0]), (-1, [-1]), (["class 0", 1], [0, 1]), (np.int64(1), [1])],
)
def test_classes_by_name_or_number(store: FeatureStore, label: Any, numbers: list[int]) -> None:
    found = store.sel(label=label, layer=1)["cls"]
    rows = np.flatnonzero(np.isin(LABELS, numbers))
    assert np.array_equal(found.values, CONTENT.arrays()["cls"][rows, 0])
    both = store.sel(image=slice(10), label=label)["cls"]
    assert np.array_equal(both.values, CONTENT.arrays()["cls"][rows[rows < 10]])


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"image": "class 0/i000.png"}, "no image 'class 0/i000.png' (did you mean 'class 0/ï000"),
        ({"image": [IDS[0], "x"]}, "no image 'x'; image_ids has all"),
        ({"image": 22}, "no row 22; it has 22 images"),
        ({"image": 1.5}, "no row 1.5; it has 22 images"),
        ({"image": True}, "no row True"),
        ({"image": {}}, "no row {}"),
        ({"layer": None}, "layer None is neither a name nor a number"),
        ({"layer": 1.5}, "layer 1.5 is neither"),
        ({"label": "class1"}, "no class 'class1' (did you mean 'class 1'?); it has class 0, class"),
        ({"label": 7}, "no class 7; it has class 0, class 1"),
        ({"label": "zebra"}, "no class 'zebra'; it has class 0, class 1"),
    ],
)
def test_a_name_that_is_not_there_is_one_line_with_the_nearest(
    store: FeatureStore, chosen: dict[str, Any], words: str
) -> None:
    with pytest.raises(StoreError) as info:
        store.sel(**chosen)
    assert words in str(info.value)
    assert "\n" not in str(info.value)


def test_nothing_is_read_before_it_is_asked(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = store.sel(label="class 1", layer=-1)

    def no(*_: Any) -> None:
        raise AssertionError("read")

    with monkeypatch.context() as patch:
        patch.setattr("vitfeat.store.stored_array.StoredArray._read_shards", no)
        repr(found)
        found._repr_html_()
        found = found.isel(channel=[0, 3])["cls"]
    rows = np.flatnonzero(LABELS == 1)
    assert np.array_equal(found.values, CONTENT.arrays()["cls"][rows, 2][:, [0, 3]])


def test_arrays_of_some_images_have_those_that_were_chosen(limited: FeatureStore) -> None:
    expected = LIMITED.arrays()["attention"]
    some = limited.sel(image=[20, 3, 1], layer=-1)
    assert np.array_equal(some["attention"].values, expected[[2, 0], 2])
    assert some["attention_image"].values.tolist() == [20, 1]
    one = limited.sel(image=9)["attention"]
    assert np.array_equal(one.values, expected[1])
    assert "attention" not in limited.sel(image=10)
    assert np.array_equal(limited.sel(layer=-1)["attention"].values, expected[:, 2])


def test_regions_and_tokens_of_the_images_that_were_chosen(ragged: FeatureStore) -> None:
    expected = RAGGED.arrays()
    starts = np.cumsum([0, *COUNTS])
    found = ragged.sel(image=[21, 5, 0], layer=3)
    regions = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in (21, 5, 0)])
    assert np.array_equal(found["regions"].values, expected["regions"][regions, 1])
    assert found["region_image"].values.tolist() == [21] * 7 + [5] * 5
    first, last = ragged.token_start[5:7]
    one = ragged.sel(image=5)
    assert np.array_equal(one["spatial"].values, expected["spatial"][first:last])
    assert one["grid_shape"].values.tolist() == list(ragged.grid_shapes[5])
    assert "token_start" not in one


# --- Into other libraries ---


def _exported(dataset: xarray.Dataset, path: Path) -> xarray.Dataset:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*onsolidated metadata")
        warnings.filterwarnings("ignore", message=".*Zarr format 3 specification")
        if path.suffix == ".nc":
            dataset.to_netcdf(path)
            return xarray.open_dataset(path)
        dataset.to_zarr(path)
        return xarray.open_zarr(path, chunks=None)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("kind", ["store", "limited", "ragged"])
def test_the_whole_dataset_goes_into_netcdf_and_zarr_and_back(
    request: pytest.FixtureRequest, kind: str, suffix: str, tmp_path: Path
) -> None:
    source: FeatureStore = request.getfixturevalue(kind)
    written = source.to_xarray()
    with _exported(written, tmp_path / f"x{suffix}") as found:
        assert set(found.variables) == set(written.variables)
        for name, values in written.data_vars.items():
            assert found[name].dims == values.dims
            assert np.array_equal(found[name].values, values.values)
            assert found[name].dtype == values.dtype or values.dtype == np.int64
            assert found[name].attrs == values.attrs
        assert [str(i) for i in found["image_id"].values] == source.image_ids
        assert found["label"].values.tolist() == source.labels.tolist()
        assert found["layer"].values.tolist() == source.layers
        assert json.loads(found.attrs["vitfeat"])["request"] == source.attributes["request"]
        assert found.attrs["model"] == "m"


def test_one_array_goes_into_netcdf(store: FeatureStore, tmp_path: Path) -> None:
    store.to_xarray()[["cls"]].to_netcdf(tmp_path / "x.nc")
    store.to_xarray()["cls"].sel(layer=3).to_netcdf(tmp_path / "y.nc")
    store.sel(image=IDS[3], layer=-1)[["cls"]].to_netcdf(tmp_path / "z.nc")
    with xarray.open_dataset(tmp_path / "z.nc") as found:
        assert np.array_equal(found["cls"].values, CONTENT.arrays()["cls"][3, 2])
        assert str(found["image_id"].values) == IDS[3]


def test_a_mean_over_many_images_keeps_its_digits(tmp_path: Path) -> None:
    """xarray sums float16 in float16: of 4,000 numbers near 10 the sum stops at 32,768."""
    content = Content(taps=("cls",), n_images=4000, block=512)
    values = np.random.default_rng(0).normal(10, 0.1, (4000, 3, 8)).astype(np.float16)
    with open_writer(
        *(tmp_path / "m.zarr", content.layout, content.geometry, content.rows, content.request, "m")
    ) as writer:
        for block in range(content.layout.n_blocks):
            rows = content.layout.rows(block)
            writer.write_block(
                block, {"cls": values[rows.start : rows.stop]}, forward_images=len(rows)
            )
        writer.seal()
    store = vitfeat.open(tmp_path / "m.zarr")
    expected = values.astype(np.float64).mean(0)
    found = store.to_xarray()["cls"].mean("image")
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    assert store["cls"].dtype == np.float16
    assert store.sel(layer=-1)["cls"].dtype == np.float32


def test_a_data_frame_has_the_labels(store: FeatureStore) -> None:
    frame = store.to_xarray()["cls"].to_dataframe().reset_index()
    assert len(frame) == N_IMAGES * 3 * 8
    assert {"image", "layer", "channel", "image_id", "label", "cls"} <= set(frame.columns)
    row = frame[(frame.image_id == IDS[7]) & (frame.layer == 3) & (frame.channel == 2)]
    assert row["cls"].item() == CONTENT.arrays()["cls"][7, 1, 2]
    assert row["label"].item() == LABELS[7]
    norms = store.to_xarray()[["attention_summary.entropy"]].to_dataframe()
    assert norms["attention_summary.entropy"].notna().all()


def test_two_stores_of_the_same_images_go_into_one_dataset(store: FeatureStore) -> None:
    a, b = store.to_xarray(), vitfeat.open(store.path).to_xarray()
    assert float(abs(a["cls"] - b["cls"]).max()) == 0
    both = xarray.concat([a[["cls"]], b[["cls"]]], dim="model")
    assert both["cls"].sizes["model"] == 2


def test_a_name_is_one_array_of_a_torch_dataset(store: FeatureStore) -> None:
    dataset = store.torch_dataset("cls")
    assert set(dataset[0]) == {"cls", "label", "image_id"}
    assert torch.equal(dataset[7]["cls"], torch.from_numpy(CONTENT.arrays()["cls"][7, 2]))
    assert set(store.torch_dataset("attention_summary/entropy")[0]) >= {"attention_summary/entropy"}
    with pytest.raises(StoreError, match="no array 'c'"):
        store.torch_dataset(("c", "l", "s"))
    with pytest.raises(StoreError, match="no array is asked for; it holds cls, registers"):
        store.torch_dataset(())


# --- Looking ---


class _Checker(HTMLParser):
    """Holds tags open against tags closed, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_notebook_shows_a_store_as_a_table(store: FeatureStore) -> None:
    checker = _Checker()
    checker.feed(store._repr_html_())
    assert not checker.open
    for word in (
        *("m", " on 22 images", "class 0, class 1", "1, 3, 4", "fp32, stored as float16"),
        *("attention_summary/aligned", "image 22, layer 3, head 2, dy 3, dx 5"),
        "square: short side to 37, its centre 32 x 32 kept: 86.49 % of the short side",
    ):
        assert word in checker.text
    assert 'title="CLS token of each block&#x27;s output' in store._repr_html_()


def test_what_a_store_says_of_itself_is_no_markup(damaged: Path) -> None:
    def change(attributes: dict[str, Any]) -> None:
        attributes["notes"] = ["<script>alert(1)</script> & more"]
        attributes["model"] = "<b>x"
        attributes["classes"] = {str(i): f"<i>{i}" for i in range(100)}

    resealed(damaged, change)
    html = vitfeat.open(damaged)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "&lt;b&gt;x" in html
    assert "... &lt;i&gt;99 (100)" in html
    assert len(html) < 6000


def test_reprs_are_one_line(store: FeatureStore, limited: FeatureStore) -> None:
    for thing in (store, limited, store["cls"], limited["attention"]):
        assert "\n" not in repr(thing)
