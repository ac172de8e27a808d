"""Stores with taps of some images only: written, interrupted, read, damaged."""

from __future__ import annotations

import errno
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from tests.store.filled import ONE_AN_IMAGE, Content, copied, files, flip, shard_of
from vitfeat.errors import StoreError
from vitfeat.store.info import describe
from vitfeat.store.layout import ATTRIBUTE, FORMAT_VERSION
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.reader import FeatureStore
from vitfeat.store.verify import verify
from vitfeat.store.writer import StoreWriter, open_writer

# Of 22 images in blocks of 8. Some blocks have one of them, many or none.
KEPT = {
    "attention": (9,),
    "attention_summary": (0, 1, 2, 3, 20),
    "block_input": (2, 7, 8, 15, 16, 21),
    "attn_branch": tuple(range(1, 22)),
    "mlp_branch": (0, 21),
}
CONTENT = Content(taps=ONE_AN_IMAGE, kept=KEPT)


@pytest.fixture(scope="module", autouse=True)
def _small_shards() -> Any:
    """Shards of two images and more, so that they begin and end inside blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitfeat.store.layout._SHARD_BYTES", 1200)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _small_shards: Any) -> Path:
    path = tmp_path_factory.mktemp("limited") / "m.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CONTENT.write(path)
    return path


@pytest.fixture
def store(whole: Path) -> FeatureStore:
    return open_store(whole)


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    return copied(whole, tmp_path / "m.zarr")


def _same_files(a: Path, b: Path) -> None:
    left, right = files(a), files(b)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


# --- Writing ---


def test_what_goes_in_comes_out_bit_for_bit(whole: Path) -> None:
    store, damages = verify(whole)
    assert damages == []
    for name, values in CONTENT.arrays().items():
        found = np.asarray(store[name][:])
        assert found.dtype == values.dtype
        assert found.tobytes() == values.tobytes()
    assert not (whole / ".progress").exists()


def test_shards_reach_over_blocks(store: FeatureStore) -> None:
    """Or these tests would show nothing: shards of 4 and 16 images, and blocks of 8."""
    shards = {n: store[n].shards[0] for n in ("block_input/spatial", "attn_branch/cls")}
    assert shards == {"block_input/spatial": 4, "attn_branch/cls": 16}
    for name, facts in store.attributes["sealed"]["arrays"].items():
        array: Any = store[name]
        found = [f for f in files(store.path / name) if f.startswith("c.")]
        assert len(found) == facts["shards"] == -(-array.shape[0] // array.shards[0])
        assert facts["shape"] == list(array.shape)


@pytest.mark.parametrize("first", [[], [0], [1], [2, 0], [2, 1, 0]])
def test_a_resumed_store_has_the_bytes_of_an_uninterrupted_one(
    whole: Path, tmp_path: Path, first: list[int]
) -> None:
    path = tmp_path / "m.zarr"
    CONTENT.write(path, first, seal=False)
    assert not path.exists()
    missing, manifest = CONTENT.write(path)
    assert missing == sorted({0, 1, 2} - set(first))
    assert manifest is not None
    assert manifest["format_version"] == FORMAT_VERSION
    _same_files(path, whole)


def test_a_half_written_block_is_written_anew(whole: Path, tmp_path: Path) -> None:
    """As a kill leaves it: pieces cut or of nonsense, and no marker behind them."""
    path = tmp_path / "m.zarr"
    CONTENT.write(path, [0], seal=False)
    for block, size in ((1, 5), (2, 5000)):
        (partial_path(path) / ".progress" / f"{block:06d}.pieces").write_bytes(b"\x07" * size)
    assert CONTENT.write(path)[0] == [1, 2]
    _same_files(path, whole)


@pytest.mark.parametrize("good", [0, 1, 2, 3, 5, 8])
def test_a_kill_between_shards_loses_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    """Shards are put together when the last of their blocks is there: then, or when sealing."""

    class Kill(BaseException):
        pass

    path, left = tmp_path / "m.zarr", [good]
    write = StoreWriter._write

    def stop(self: StoreWriter, *args: Any) -> None:
        if not left[0]:
            raise Kill
        left[0] -= 1
        write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "_write", stop)
        with pytest.raises(Kill):
            CONTENT.write(path, [2, 0, 1])
    assert not path.exists()
    # Half a shard of an array of some images, too.
    shard_of(partial_path(path), "attn_branch/cls", 1).write_bytes(b"\x07" * 30)
    CONTENT.write(path)
    _same_files(path, whole)


def _open(path: Path) -> Any:
    return open_writer(path, CONTENT.layout, CONTENT.geometry, CONTENT.rows, CONTENT.request, "m")


@pytest.mark.parametrize("where", ["piece", "shard"])
def test_a_full_disk_is_told_and_gone_on_from(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "m.zarr"
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: Any, **__: Any) -> None:
        raise full

    CONTENT.write(path, [0], seal=False)
    with monkeypatch.context() as patch:
        if where == "piece":
            patch.setattr("vitfeat.store.progress.write_files", refuse)
            words = "block 1 could not be written: no space left on the disk"
        else:
            patch.setattr("vitfeat.store.writer.StoreWriter._pieces_of", refuse)
            words = "shard 0 of attention could not be written: no space left on the disk"
        with pytest.raises(StoreError, match=words) as info:
            CONTENT.write(path)
        assert "\n" not in str(info.value)
    CONTENT.write(path)
    _same_files(path, whole)


def test_an_unfinished_store_of_another_limit_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    CONTENT.write(path, [0], seal=False)
    other = replace(CONTENT, kept={**KEPT, "attention": (3, 9)})
    with pytest.raises(StoreError, match=r"in the way \(limits\.attention: \['9'\] in the store"):
        other.write(path)
    assert other.write(path, replacing=True)[0] == [0, 1, 2]
    assert open_store(path).rows("attention").tolist() == [3, 9]


# --- Reading ---


def test_rows(store: FeatureStore) -> None:
    for name in store.array_names:
        tap = name.partition("/")[0]
        rows = store.rows(name)
        assert rows.dtype == np.int64
        assert rows.tolist() == list(KEPT.get(tap, range(22)))
        assert store.is_limited(name) == (tap in KEPT)
        assert len(rows) == store[name].shape[0]
    with pytest.raises(StoreError, match="no array 'block_inputs/cls'"):
        store.rows("block_inputs/cls")


def test_what_the_model_has(store: FeatureStore, tmp_path: Path) -> None:
    assert store.model_has("block_input/registers")
    assert store.grid == (2, 3)
    geometry = replace(CONTENT.geometry, has_cls=False, n_registers=0)
    Content(geometry=geometry, taps=("block_input",)).write(tmp_path / "n.zarr")
    without = open_store(tmp_path / "n.zarr")
    assert without.array_names == ("block_input/spatial",)
    assert not without.model_has("block_input/cls")
    assert without.model_has("block_input/spatial")


def test_description(store: FeatureStore) -> None:
    text = "\n".join(describe(store))
    assert "(attention_image 1, layer 3, head 2," in text
    assert "limited      attention: 1 image, named" in text
    assert "limited      block_input: 6 images, named" in text


def test_xarray_is_lazy_and_labelled(store: FeatureStore) -> None:
    dataset = store.to_xarray()
    expected = CONTENT.arrays()
    assert set(dataset.data_vars) == {name.replace("/", ".") for name in expected}
    assert not any(array.variable._in_memory for array in dataset.data_vars.values())
    for name, values in expected.items():
        assert np.array_equal(dataset[name.replace("/", ".")].values, values)
    found = dataset["block_input.spatial"]
    assert found.dims == ("block_input_image", "layer", "y", "x", "channel")
    assert found["block_input_image"].values.tolist() == list(KEPT["block_input"])
    # By row of the store, whatever the array's own numbering.
    chosen = found.sel(block_input_image=15, layer=3)
    assert np.array_equal(chosen.values, expected["block_input/spatial"][3, 1])
    assert dataset["residual_norms.mlp_skip"].dims == ("image", "layer", "token")


def test_plain_xarray_opens_root_and_groups_without_a_warning(whole: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(whole) as dataset:
            names = {"cls", "registers", "spatial", "attention"}
            names |= {"attention_mean", "attention_centre"}
            assert set(dataset.data_vars) == names
            assert dataset["attention_image"].values.tolist() == [9]
            assert {"image_id", "label"} <= set(dataset["cls"].coords)
            assert "image_id" not in dataset["attention"].coords
        for group in ("block_input", "attn_branch", "mlp_branch", "attention_summary"):
            with xarray.open_zarr(whole, group=group) as dataset:
                assert dataset[f"{group}_image"].values.tolist() == list(KEPT[group])
                assert dataset["layer"].values.tolist() == [1, 3, 4]
        with xarray.open_zarr(whole, group="residual_norms") as dataset:
            assert dataset.sizes == {"image": 22, "layer": 3, "token": 9}


def test_one_layer_of_few_images_is_read_lazily(store: FeatureStore) -> None:
    rows = store.rows("block_input/cls")
    entry = int(np.searchsorted(rows, 15))
    assert np.array_equal(
        store["block_input/cls"][entry, 1], CONTENT.arrays()["block_input/cls"][3, 1]
    )


def test_a_torch_dataset_of_some_images_is_refused(store: FeatureStore) -> None:
    with pytest.raises(StoreError) as info:
        store.torch_dataset(("cls", "block_input/cls"))
    message = str(info.value)
    assert "block_input/cls has 6 entries for 22 images" in message
    assert "store.rows('block_input/cls')" in message
    assert "\n" not in message
    item = store.torch_dataset(("cls", "residual_norms/mlp_skip"), "last")[3]
    assert item["residual_norms/mlp_skip"].shape == (9,)


# --- Damage ---


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("attn_branch/cls/c.1.0.0", "shard 1 of attn_branch/cls is missing"),
        ("attention_image/c.0", "attention_image/c.0 is missing"),
        (
            "block_input/block_input_image/zarr.json",
            "block_input/block_input_image/zarr.json is missing",
        ),
        ("mlp_branch/layer/c.0", "mlp_branch/layer/c.0 is missing"),
        ("residual_norms/layer/c.0", "residual_norms/layer/c.0 is missing"),
    ],
)
def test_what_is_absent_is_told_on_opening(damaged: Path, file: str, words: str) -> None:
    (damaged / file).unlink()
    with pytest.raises(StoreError, match=words):
        open_store(damaged)


def test_a_flipped_bit_is_found(damaged: Path) -> None:
    shard = shard_of(damaged, "attn_branch/spatial", 2)
    flip(shard, shard.stat().st_size // 2)
    assert [(d.array, d.shard) for d in verify(damaged)[1]] == [("attn_branch/spatial", 2)]
    flip(shard_of(damaged, "block_input/block_input_image"), 5)
    with pytest.raises(StoreError, match=r"block_input_image/c\.0 is not as it was") as info:
        open_store(damaged)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "rows", [[7, 2, 8, 15, 16, 21], [2, 7, 8, 15, 16, 22], [-1, 7, 8, 9, 10, 11]]
)
def test_other_rows_than_were_sealed(damaged: Path, rows: list[int]) -> None:
    zarr.open_group(damaged / "block_input", mode="r+")["block_input_image"][:] = rows  # type: ignore[index]
    with pytest.raises(StoreError, match=r"block_input_image/c\.0 is not as it was"):
        open_store(damaged)


def test_the_metadata_say_what_is_limited(whole: Path) -> None:
    metadata = json.loads((whole / "block_input" / "cls" / "zarr.json").read_text())
    assert metadata["dimension_names"] == ["block_input_image", "layer", "channel"]
    assert metadata["attributes"]["tap"] == "block_input"
    assert "coordinates" not in metadata["attributes"]
    root = json.loads((whole / "zarr.json").read_text())["attributes"][ATTRIBUTE]
    assert sorted(root["request"]["limits"]) == sorted(KEPT)
