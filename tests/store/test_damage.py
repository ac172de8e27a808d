"""Stores that are not whole: told when they are opened, or found by verify; never read silently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store.filled import BLOCK, GEOMETRY, Content
from vitfeat.errors import StoreError
from vitfeat.store.layout import ATTRIBUTE
from vitfeat.store.opening import manifest_path, open_store
from vitfeat.store.verify import verify
from vitfeat.store.writer import open_writer

_AXES = {
    "cls": "0/0",
    "spatial": "0/0/0/0",
    "attention": "0/0/0/0",
    "attention_summary/deviation_heads": "0",
}


def _shard(store: Path, name: str, block: int) -> Path:
    return store / name / "c" / str(block) / _AXES[name]


def _edit(store: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = store / "zarr.json"
    metadata = json.loads(path.read_text())
    change(metadata["attributes"][ATTRIBUTE])
    path.write_text(json.dumps(metadata))


def _refused(store: Path) -> str:
    with pytest.raises(StoreError) as info:
        open_store(store)
    message = str(info.value)
    assert "\n" not in message
    assert str(store) in message
    return message


@pytest.mark.parametrize("name", list(_AXES))
@pytest.mark.parametrize("block", [0, 2])
def test_an_absent_shard_is_told_on_opening(damaged: Path, name: str, block: int) -> None:
    _shard(damaged, name, block).unlink()
    assert f"block {block} of {name} is missing" in _refused(damaged)


@pytest.mark.parametrize(
    "name", ["image_id", "label", "layer", "attention_summary/layer", "attention_summary/dx"]
)
@pytest.mark.parametrize("file", ["c/0", "zarr.json"])
def test_an_absent_coordinate_is_told_on_opening(damaged: Path, name: str, file: str) -> None:
    """Zarr would read an absent chunk as zeros: all images of class 0."""
    (damaged / name / file).unlink()
    assert f"{name} is missing" in _refused(damaged)


@pytest.mark.parametrize("name", ["cls", "attention_summary/deviation_heads"])
def test_an_array_without_metadata_is_told_on_opening(damaged: Path, name: str) -> None:
    (damaged / name / "zarr.json").unlink()
    assert f"{name} is missing" in _refused(damaged)


def test_coordinates_of_zeros_are_on_disk(tmp_path: Path) -> None:
    """Only then can their absence be told."""
    content = Content(taps=("cls",), n_images=1)  # its one label is -1, its layers from 1
    content.write(tmp_path / "m.zarr")
    zeros = Content(n_images=2)  # labels -1, 0
    zeros.write(tmp_path / "n.zarr")
    for store in ("m.zarr", "n.zarr"):
        assert (tmp_path / store / "label" / "c" / "0").is_file()
    one = replace(content, geometry=replace(GEOMETRY, layers=(0,)))
    one.write(tmp_path / "o.zarr")
    assert open_store(tmp_path / "o.zarr").layers == [0]


@pytest.mark.parametrize("name", list(_AXES))
def test_a_flipped_byte_is_found(damaged: Path, name: str) -> None:
    path = _shard(damaged, name, 1)
    data = bytearray(path.read_bytes())
    # In the first chunk's payload; in the middle; in the index at the end.
    for place in (2, len(data) // 2, len(data) - 6):
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        _, damages = verify(damaged)
        assert [(d.array, d.block) for d in damages] == [(name, 1)], place
        assert str(damages[0]).startswith(f"{name}, block 1: ")
        with pytest.raises(Exception, match=r".+"):  # the codec's own class
            open_store(damaged)[name][BLOCK : 2 * BLOCK]
    path.write_bytes(data)
    assert verify(damaged)[1] == []


def test_the_other_blocks_of_a_damaged_array_can_be_read(damaged: Path) -> None:
    path = _shard(damaged, "cls", 1)
    data = bytearray(path.read_bytes())
    data[2] ^= 1
    path.write_bytes(data)
    found = np.asarray(open_store(damaged)["cls"][:BLOCK])
    assert np.array_equal(found, Content().arrays()["cls"][:BLOCK])


@pytest.mark.parametrize("name", ["image_id", "label", "attention_summary/dy"])
def test_a_flipped_byte_of_a_coordinate_is_found(damaged: Path, name: str) -> None:
    path = damaged / name / "c" / "0"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [(d.array, d.block) for d in verify(damaged)[1]] == [(name, 0)]


@pytest.mark.parametrize("left", [0, 10, 0.5, 0.99])
def test_a_truncated_shard_is_found(damaged: Path, left: float) -> None:
    path = _shard(damaged, "spatial", 2)
    data = path.read_bytes()
    path.write_bytes(data[: int(left if left > 1 else left * len(data))])
    damages = verify(damaged)[1]
    assert [(d.array, d.block) for d in damages] == [("spatial", 2)]
    assert "\n" not in str(damages[0])


def test_several_damages_are_all_named(damaged: Path) -> None:
    for name, block in (("cls", 0), ("spatial", 2)):
        _shard(damaged, name, block).write_bytes(b"x")
    assert [(d.array, d.block) for d in verify(damaged)[1]] == [("cls", 0), ("spatial", 2)]


def test_nan_is_damage(tmp_path: Path) -> None:
    content = Content(taps=("cls",))
    with open_writer(
        tmp_path / "m.zarr",
        content.layout,
        content.geometry,
        content.rows,
        content.request,
        "m",
    ) as writer:
        for block in range(3):
            values = np.ones((len(content.layout.rows(block)), 3, 8), np.float16)
            if block == 1:
                values[3, 1, 2] = np.nan
            writer.write_block(block, {"cls": values}, forward_images=1)
        writer.seal()
    (damage,) = verify(tmp_path / "m.zarr")[1]
    assert (damage.array, damage.block) == ("cls", 1)
    assert "NaN or inf" in damage.reason


def test_an_array_of_another_shape_than_sealed(damaged: Path) -> None:
    _edit(damaged, lambda a: a["sealed"]["arrays"]["cls"].update(dtype="float32"))
    with pytest.raises(StoreError, match=r"cls is float16 .*, sealed as float32"):
        verify(damaged)


def test_no_store(tmp_path: Path) -> None:
    assert "no such store; extract it first" in _refused(tmp_path / "absent.zarr")


def test_missing_metadata(damaged: Path) -> None:
    (damaged / "zarr.json").unlink()
    assert "not a feature store" in _refused(damaged)


@pytest.mark.parametrize("text", ["", "hello\nworld", "[]", "{}", '{"attributes": {"vitfeat": 1}}'])
def test_other_text_in_place_of_the_metadata(damaged: Path, text: str) -> None:
    (damaged / "zarr.json").write_text(text)
    assert "not a feature store" in _refused(damaged)


@pytest.mark.parametrize("name", ["cls", "label"])
def test_other_text_in_place_of_an_arrays_metadata(damaged: Path, name: str) -> None:
    (damaged / name / "zarr.json").write_text("hello")
    store = open_store(damaged)
    with pytest.raises(StoreError, match=f"the metadata of {name} are damaged"):
        store.array(name)


def test_a_file_in_the_place_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "m.zarr").write_text("hello")
    assert "not a feature store" in _refused(tmp_path / "m.zarr")


def test_somebody_elses_zarr(tmp_path: Path) -> None:
    import zarr

    zarr.create_group(tmp_path / "m.zarr")
    assert "not a feature store of vitfeat" in _refused(tmp_path / "m.zarr")


def test_another_format_version(damaged: Path) -> None:
    _edit(damaged, lambda a: a.update(format_version=5))
    assert "format version 5; this vitfeat reads 1, 2, 3 and 4: extract the" in _refused(damaged)


def test_never_sealed(damaged: Path) -> None:
    _edit(damaged, lambda a: a.pop("sealed"))
    assert "never sealed" in _refused(damaged)


def test_unfinished(tmp_path: Path) -> None:
    Content().write(tmp_path / "m.zarr", [0], seal=False)
    message = _refused(tmp_path / "m.zarr")
    assert "the extraction has not finished (m.zarr.partial is there)" in message


def test_the_manifest_beside_it_must_be_its_own(damaged: Path, tmp_path: Path) -> None:
    manifest = manifest_path(damaged)
    assert manifest == tmp_path / "m.json"
    fingerprint = open_store(damaged).fingerprint
    manifest.write_text(json.dumps({"fingerprint": fingerprint}))
    open_store(damaged)
    manifest.write_text(json.dumps({"fingerprint": "0123456789ab" + "0" * 52}))
    message = _refused(damaged)
    assert "sealed for other settings than its manifest m.json" in message
    assert f"({fingerprint[:12]}… against 0123456789ab…)" in message
    open_store(damaged, check_manifest=False)


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", "3"])
def test_a_damaged_manifest(damaged: Path, text: str) -> None:
    manifest_path(damaged).write_text(text)
    with pytest.raises(StoreError, match=r"m\.json: not a manifest of a store"):
        open_store(damaged)


def test_a_store_may_be_moved(written: Path, tmp_path: Path) -> None:
    """No path stands in it."""
    shutil.copytree(written, tmp_path / "elsewhere" / "renamed.zarr")
    store, damages = verify(tmp_path / "elsewhere" / "renamed.zarr")
    assert damages == []
    assert np.array_equal(store["cls"][:], Content().arrays()["cls"])
