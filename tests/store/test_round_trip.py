from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr
from torch.utils.data import DataLoader

import vitfeat
from tests.store.filled import GEOMETRY, N_IMAGES, Content, files, shard_of
from vitfeat.errors import ConfigError, StoreError
from vitfeat.store import shards
from vitfeat.store.arrays import Geometry
from vitfeat.store.opening import open_store
from vitfeat.store.verify import verify
from vitfeat.store.writer import open_writer

CONTENT = Content()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("n_images", [1, 8, 22])
def test_what_goes_in_comes_out_bit_for_bit(tmp_path: Path, dtype: str, n_images: int) -> None:
    content = Content(dtype=dtype, n_images=n_images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content.write(tmp_path / "m.zarr")
        store = open_store(tmp_path / "m.zarr")
    expected = content.arrays()
    assert set(store.array_names) == set(expected)
    for name, values in expected.items():
        found = np.asarray(store[name][:])
        assert found.dtype == values.dtype
        assert found.tobytes() == values.tobytes()
    assert verify(tmp_path / "m.zarr")[1] == []


def test_special_values_keep_their_bits(tmp_path: Path) -> None:
    """Zarr leaves out chunks that hold nothing but the fill value; zeros and -0 are not that."""
    content = Content(taps=("cls",), dtype="float32", n_images=8)
    layout = content.layout
    values = np.zeros((8, 3, 8), np.float32)
    values[0] = -0.0
    values[1] = np.finfo(np.float32).smallest_subnormal
    values[2] = np.finfo(np.float32).max
    with open_writer(
        tmp_path / "m.zarr", layout, GEOMETRY, content.rows, content.request, "m"
    ) as writer:
        writer.write_block(0, {"cls": values}, forward_images=8)
        writer.seal()
    assert np.asarray(open_store(tmp_path / "m.zarr")["cls"][:]).tobytes() == values.tobytes()


def test_facts(written: Path) -> None:
    store = vitfeat.open(str(written))
    rows = CONTENT.rows
    assert store.n_images == N_IMAGES
    assert store.layers == [1, 3, 4]
    assert store.image_ids == list(rows.image_id)
    assert store.labels.dtype == np.int64
    assert store.labels.tolist() == rows.label.tolist()
    assert store.classes == {0: "class 0", 1: "class 1"}
    assert store.image_fingerprint == "cd" * 32
    assert store.attributes["has_cls"]
    assert store.attributes["n_registers"] == 2
    assert store.attributes["skipped"] == [["broken.png", "no image"]]
    assert store.attributes["request"] == CONTENT.request
    assert store.attributes["forward_images"] == N_IMAGES
    assert "cls" in store
    assert "nothing" not in store
    assert "22 images, 3 layers, cls" in repr(store)


def test_an_unknown_array_gives_the_nearest(written: Path) -> None:
    with pytest.raises(StoreError, match=r"no array 'spatail' \(did you mean 'spatial'\?\); it"):
        open_store(written)["spatail"]


@pytest.mark.parametrize(
    ("wanted", "positions"),
    [
        ("all", [0, 1, 2]),
        ("first", [0]),
        ("middle", [1]),
        ("last", [2]),
        (3, [1]),
        ([4, 1, "last"], [0, 2]),
    ],
)
def test_layer_positions(written: Path, wanted: Any, positions: list[int]) -> None:
    assert open_store(written).layer_positions(wanted) == positions


def test_layers_that_are_not_stored(written: Path) -> None:
    store = open_store(written)
    with pytest.raises(StoreError, match=r"layer 2 is not stored; it has \[1, 3, 4\]"):
        store.layer_positions(2)
    with pytest.raises(ConfigError, match="found 'frist'"):
        store.layer_positions("frist")


def test_the_manifest(tmp_path: Path) -> None:
    _, manifest = CONTENT.write(tmp_path / "m.zarr")
    assert manifest is not None
    assert manifest["store"] == "m.zarr"
    assert manifest["forward_images"] == N_IMAGES
    assert manifest["fingerprint"] == open_store(tmp_path / "m.zarr").fingerprint
    for name, values in CONTENT.arrays().items():
        facts = manifest["arrays"][name]
        assert facts["shape"] == list(values.shape)
        assert facts["dtype"] == str(values.dtype)
        assert facts["shards"] == 3
        shards = [shard_of(tmp_path / "m.zarr", name, block) for block in range(3)]
        assert facts["bytes"] == sum(shard.stat().st_size for shard in shards)


# --- On disk ---


def test_every_chunk_is_checked_and_every_shard_is_whole(written: Path) -> None:
    """Read off the metadata that Zarr itself wrote."""
    group = zarr.open_group(written, mode="r")
    for spec in CONTENT.layout.arrays:
        array: Any = group[spec.name]
        assert array.chunks == CONTENT.layout.chunk_shape(spec)
        assert array.shards == CONTENT.layout.shard_shape(spec)
        assert array.metadata.dimension_names == spec.dims
        assert array.attrs["tap"] == spec.tap
        assert np.isnan(array.fill_value)
        assert [type(c).__name__ for c in array.compressors] == ["BloscCodec", "Crc32cCodec"]
        shards = [f for f in files(written / spec.name) if f.startswith("c.")]
        assert len(shards) == 3


def test_chunks_are_little_endian_and_checked() -> None:
    assert shards.serializer().to_dict()["configuration"] == {"endian": "little"}
    blosc, crc = shards.compressors("float32")
    assert blosc.typesize == 4
    assert crc.to_dict()["name"] == "crc32c"


class _CountingStore(zarr.storage.WrapperStore[Any]):
    """Counts the bytes that are read."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.bytes_read = 0

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        found = await super().get(*args, **kwargs)
        self.bytes_read += len(found) if found is not None else 0
        return found


def test_one_layer_reads_one_layer(tmp_path: Path) -> None:
    geometry = Geometry(tuple(range(10)), 256, 2, (2, 2), has_cls=True, n_registers=0)
    content = Content(geometry=geometry, taps=("cls",), dtype="float32", n_images=8)
    content.write(tmp_path / "m.zarr")
    counting = _CountingStore(zarr.storage.LocalStore(tmp_path / "m.zarr", read_only=True))
    array: Any = zarr.open_group(counting, mode="r")["cls"]
    counting.bytes_read = 0
    found = array[:, 3]
    assert np.array_equal(found, content.arrays()["cls"][:, 3])
    # Noise hardly compresses: a tenth of the store, and the shard's index.
    assert 8 * 256 * 4 * 0.8 < counting.bytes_read < 8 * 256 * 4 * 1.3
    counting.bytes_read = 0
    array[:]
    assert counting.bytes_read > 8 * 10 * 256 * 4 * 0.8


# --- xarray ---


def test_xarray_is_lazy_and_labelled(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_store(written).to_xarray()
    expected = CONTENT.arrays()
    assert set(dataset.data_vars) == {name.replace("/", ".") for name in expected}
    assert {"image_id", "label", "layer", "dy", "dx"} <= set(dataset.coords)
    assert dataset["spatial"].dims == ("image", "layer", "y", "x", "channel")
    assert not any(array.variable._in_memory for array in dataset.data_vars.values())
    assert dataset["layer"].values.tolist() == [1, 3, 4]
    assert dataset["dy"].values.tolist() == [-1, 0, 1]
    assert dataset["dx"].values.tolist() == [-2, -1, 0, 1, 2]
    assert dataset["image_id"].dims == dataset["label"].dims == ("image",)
    assert [str(v) for v in dataset["image_id"].values] == list(CONTENT.rows.image_id)
    for name, values in expected.items():
        assert np.array_equal(dataset[name.replace("/", ".")].values, values)
    layer = dataset["cls"].sel(layer=3)
    assert np.array_equal(layer.values, expected["cls"][:, 1])
    chosen = dataset["attention_summary.aligned"].sel(dy=0, dx=-2)
    assert np.array_equal(chosen.values, expected["attention_summary/aligned"][..., 1, 0])
    assert json.loads(dataset.attrs["vitfeat"])["fingerprint"] == open_store(written).fingerprint


def test_plain_xarray_opens_it_without_a_warning(written: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(written) as dataset:
            assert set(dataset.data_vars) == {"cls", "registers", "spatial", "attention"}
            assert {"image_id", "label", "layer"} <= set(dataset.coords)
            assert np.array_equal(dataset["cls"].values, CONTENT.arrays()["cls"])
        with xarray.open_zarr(written, group="attention_summary", consolidated=False) as summaries:
            found = summaries["entropy"].values
            assert np.array_equal(found, CONTENT.arrays()["attention_summary/entropy"])


# --- PyTorch ---


def test_torch_items(written: Path) -> None:
    arrays, rows = CONTENT.arrays(), CONTENT.rows
    dataset = open_store(written).torch_dataset(("cls", "spatial"), "all")
    assert len(dataset) == N_IMAGES
    for index in (0, 21, -1):
        item = dataset[index]
        assert set(item) == {"cls", "spatial", "label", "image_id"}
        for name in ("cls", "spatial"):
            assert torch.equal(item[name], torch.from_numpy(arrays[name][index]))
        assert item["label"] == rows.label[index]
        assert item["image_id"] == rows.image_id[index]
    with pytest.raises(IndexError):
        dataset[N_IMAGES]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("last", 2), ("middle", 1), (1, 0), ([1], [0]), (["last", 1], [0, 2]), ("all", [0, 1, 2])],
)
def test_torch_layers(written: Path, layers: Any, expected: Any) -> None:
    """One layer by name or number has no layer dimension; a list keeps it."""
    arrays = CONTENT.arrays()
    dataset = open_store(written).torch_dataset(("cls", "attention_summary/n_null"), layers)
    for name in ("cls", "attention_summary/n_null"):
        assert np.array_equal(dataset[5][name].numpy(), arrays[name][5, expected])


def test_torch_batches_may_repeat_and_go_backwards(written: Path) -> None:
    dataset = open_store(written).torch_dataset(("cls",), 3)
    rows = [20, 3, 3, 0, 21, 8]
    items = dataset.__getitems__(rows)
    found = torch.stack([item["cls"] for item in items])
    assert np.array_equal(found.numpy(), CONTENT.arrays()["cls"][rows, 1])
    assert [item["image_id"] for item in items] == [CONTENT.rows.image_id[r] for r in rows]


def test_a_pickled_dataset_opens_the_store_anew(written: Path) -> None:
    dataset = open_store(written).torch_dataset(("cls",))
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy._store is not dataset._store  # no handles travel
    assert torch.equal(copy[4]["cls"], dataset[4]["cls"])


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_torch_loader_with_workers(written: Path, start: str) -> None:
    dataset = open_store(written).torch_dataset(("cls",), "last")
    dataset[0]  # the parent has read, and holds threads and handles
    loader = DataLoader(
        dataset, batch_size=5, num_workers=2, multiprocessing_context=start, timeout=60
    )
    batches = list(loader)
    found = torch.cat([batch["cls"] for batch in batches])
    assert np.array_equal(found.numpy(), CONTENT.arrays()["cls"][:, 2])
    labels = torch.cat([batch["label"] for batch in batches])
    assert labels.tolist() == CONTENT.rows.label.tolist()
    assert [i for batch in batches for i in batch["image_id"]] == list(CONTENT.rows.image_id)


def test_an_unknown_array_is_told_when_the_dataset_is_made(written: Path) -> None:
    with pytest.raises(StoreError, match="no array 'clss'"):
        open_store(written).torch_dataset(("clss",))
