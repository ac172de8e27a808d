"""Stores that are not whole: told when they are opened, or found by verify; never read silently."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.store.filled import BLOCK, GEOMETRY, Content, flip, shard_of
from vitfeat.errors import StoreError
from vitfeat.store.layout import ATTRIBUTE
from vitfeat.store.opening import open_store
from vitfeat.store.paths import manifest_path
from vitfeat.store.stored_array import StoredArray
from vitfeat.store.verify import verify
from vitfeat.store.writer import open_writer

NAMES = ("cls", "spatial", "attention", "attention_summary/deviation_heads")
LABELS = ("image_id", "label", "layer", "attention_summary/layer", "attention_summary/dx")


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


# --- Told on opening ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [0, 2])
def test_an_absent_shard_is_told_on_opening(damaged: Path, name: str, block: int) -> None:
    shard_of(damaged, name, block).unlink()
    assert (
        f"shard {block} of {name} is missing; copy the store again, run vitfeat repair, or remove"
        in (_refused(damaged))
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_shard_is_told_on_opening(damaged: Path, name: str) -> None:
    """As a quota leaves it; Zarr would read it as NaN."""
    shard_of(damaged, name, 1).write_bytes(b"")
    assert f"shard 1 of {name} is empty; copy" in _refused(damaged)


@pytest.mark.parametrize("change", [-1000, -1, 1, 1000])
def test_a_shard_of_another_length_is_told_on_opening(damaged: Path, change: int) -> None:
    shard = shard_of(damaged, "spatial", 2)
    content = shard.read_bytes()
    shard.write_bytes((content + b"x" * change) if change > 0 else content[:change])
    n_bytes = len(content)
    words = f"shard 2 of spatial has {n_bytes + change:,} bytes, {n_bytes:,} when it was sealed"
    assert words in _refused(damaged)


def test_a_copy_that_broke_off_says_how_much_is_missing(damaged: Path) -> None:
    for block in (0, 1, 2):
        shard_of(damaged, "spatial", block).unlink()
    assert "shard 0 of spatial is missing (2 more shards like it); copy" in _refused(damaged)


def test_an_array_without_its_folder_is_told_on_opening(damaged: Path) -> None:
    shutil.rmtree(damaged / "attention_summary")
    assert "attention_summary/zarr.json is missing" in _refused(damaged)
    (damaged / "attention_summary").write_text("hello")
    assert "attention_summary/zarr.json is missing" in _refused(damaged)


@pytest.mark.parametrize("name", [*LABELS, "seal/shards"])
@pytest.mark.parametrize("file", ["c.0", "zarr.json"])
def test_an_absent_coordinate_is_told_on_opening(damaged: Path, name: str, file: str) -> None:
    """Zarr would read an absent chunk as zeros: all images of class 0."""
    path = shard_of(damaged, name) if file == "c.0" else damaged / name / file
    path.unlink()
    assert f"{name}/{path.name} is missing" in _refused(damaged)


@pytest.mark.parametrize("name", [*LABELS, "cls", "seal/shards"])
@pytest.mark.parametrize("left", [0, 10])
def test_cut_metadata_and_coordinates_are_told_on_opening(
    damaged: Path, name: str, left: int
) -> None:
    for path in (damaged / name / "zarr.json", shard_of(damaged, name)):
        if name != "cls" or path.name == "zarr.json":
            content = path.read_bytes()
            path.write_bytes(content[:left])
            what = "not as it was when the store was sealed" if left else "empty"
            assert f"{name}/{path.name} is {what}; copy the store again" in _refused(damaged)
            path.write_bytes(content)
    open_store(damaged)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["request"]["layers"].__setitem__(0, 0),
        lambda a: a["request"].update(dtype="float32"),
        lambda a: a["request"]["view"].update(crop_fraction=1.0),
        lambda a: a.update(has_cls=False),
        lambda a: a.update(model="other"),
        lambda a: a["grid"].reverse(),
        lambda a: a["classes"].update({"0": "class 1"}),
        lambda a: a.update(notes=["all is well"]),
        lambda a: a.update(forward_images=23),
        lambda a: a.update(fingerprint="0" * 64),
        lambda a: a.update(format_version=3),
        lambda a: a["sealed"]["files"].popitem(),
        lambda a: a["sealed"]["arrays"]["cls"].update(dtype="float32"),
        lambda a: a["sealed"]["arrays"].pop("cls"),
        lambda a: a.update(more=1),
    ],
)
def test_an_attribute_that_was_changed_is_told_on_opening(
    damaged: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    _edit(damaged, change)
    assert "its metadata (zarr.json) are not as they were when the store was sealed" in (
        _refused(damaged)
    )


def test_a_store_whose_text_is_laid_out_otherwise_is_the_same(damaged: Path) -> None:
    path = damaged / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert verify(damaged)[1] == []


def test_coordinates_of_zeros_are_on_disk(tmp_path: Path) -> None:
    """Only then can their absence be told."""
    content = Content(taps=("cls",), n_images=1)  # its one label is -1, its layers from 1
    content.write(tmp_path / "m.zarr")
    zeros = Content(n_images=2)  # labels -1, 0
    zeros.write(tmp_path / "n.zarr")
    for store in ("m.zarr", "n.zarr"):
        assert shard_of(tmp_path / store, "label").is_file()
    one = replace(content, geometry=replace(GEOMETRY, layers=(0,)))
    one.write(tmp_path / "o.zarr")
    assert open_store(tmp_path / "o.zarr").layers == [0]


# --- Told by who reads ---


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_found(damaged: Path, name: str) -> None:
    path = shard_of(damaged, name, 1)
    size = path.stat().st_size
    # In the first chunk's payload; in the middle; in the index at the end.
    for place in (2, size // 2, size - 6):
        flip(path, place, bit=4)
        _, damages = verify(damaged)
        assert [(d.array, d.shard) for d in damages] == [(name, 1)], place
        assert str(damages[0]).startswith(f"{name}, shard 1: cannot be decoded (")
        with pytest.raises(StoreError, match=rf"images 8 to 15 of {name} cannot be decoded") as e:
            open_store(damaged)[name][BLOCK : 2 * BLOCK]
        assert "\n" not in str(e.value)
        assert str(e.value).endswith("; run vitfeat repair, or remove it and extract it again")
        flip(path, place, bit=4)
    assert verify(damaged)[1] == []


def test_a_shard_that_goes_while_a_store_is_open_is_an_error(damaged: Path) -> None:
    """Zarr reads it as NaN."""
    store = open_store(damaged)
    shard_of(damaged, "cls", 1).unlink()
    for index in (slice(None), 9, (slice(6, 9), 0, 0), [2, 20, 12]):
        with pytest.raises(StoreError, match=r"of cls cannot be decoded \(shard 1 is missing\)"):
            store["cls"][index]
    assert np.array_equal(store["cls"][:8], Content().arrays()["cls"][:8])


def test_a_chunk_that_was_never_written_is_an_error(damaged: Path) -> None:
    """Zarr leaves out chunks of the fill value, NaN, and reads them as such."""
    values = np.full((8, 3, 8), np.nan, np.float16)
    values[:, 1:] = 1
    store = open_store(damaged)
    zarr.open_group(damaged, mode="r+")["cls"][8:16] = values  # type: ignore[index]
    with pytest.raises(StoreError, match="shard 1 is damaged, or that of another"):
        store["cls"][9, 0]


def test_a_file_that_may_not_be_read_is_no_damage(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "c.0.0")

    store = open_store(damaged)
    monkeypatch.setattr(StoredArray, "_bytes", locked)
    with pytest.raises(StoreError, match=r"cls cannot be read \(Permission denied\); look after"):
        store["cls"][0]


def test_the_other_blocks_of_a_damaged_array_can_be_read(damaged: Path) -> None:
    flip(shard_of(damaged, "cls", 1), 2)
    found = open_store(damaged)["cls"][:BLOCK]
    assert np.array_equal(found, Content().arrays()["cls"][:BLOCK])


def test_several_damages_are_all_named(damaged: Path) -> None:
    for name, block in (("cls", 0), ("spatial", 2)):
        flip(shard_of(damaged, name, block), 1)
    assert [(d.array, d.shard) for d in verify(damaged)[1]] == [("cls", 0), ("spatial", 2)]


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
    assert (damage.array, damage.shard) == ("cls", 1)
    assert damage.reason == "holds NaN or inf"


# --- What stands there ---


def test_no_store(tmp_path: Path) -> None:
    assert "no such store; extract it first" in _refused(tmp_path / "absent.zarr")
    for name in ("demo-dino.zarr", "demo-mae.zarr"):
        (tmp_path / name).mkdir()
    assert "no such store (did you mean 'demo-dino.zarr'?)" in _refused(
        tmp_path / "demo-dinno.zarr"
    )
    assert "(did you mean 'demo-mae.zarr'?)" in _refused(tmp_path / "demo-mae")


def test_missing_metadata(damaged: Path) -> None:
    (damaged / "zarr.json").unlink()
    assert "its metadata (zarr.json) are missing; copy the store again" in _refused(damaged)


@pytest.mark.parametrize("text", ["", "hello\nworld", "[]", "{}", '{"attributes": {"vitfeat": 1}}'])
def test_other_text_in_place_of_the_metadata(damaged: Path, text: str) -> None:
    (damaged / "zarr.json").write_text(text)
    assert "not a feature store" in _refused(damaged)


def test_metadata_that_are_no_text(damaged: Path) -> None:
    (damaged / "zarr.json").write_bytes(b"\xff\xfe\x00")
    assert "not a feature store" in _refused(damaged)


def test_a_file_in_the_place_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "m.zarr").write_text("hello")
    assert "a file, not a feature store of vitfeat: a store is a folder" in (
        _refused(tmp_path / "m.zarr")
    )


def test_what_stands_in_the_place_of_a_store_is_said(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    assert "the manifest of a store; the store is m.zarr beside it" in _refused(tmp_path / "m.json")
    assert "a folder of 1 store (m.zarr); give one of them" in _refused(tmp_path)
    assert f"a part of the store {damaged}; give the store" in _refused(damaged / "cls")
    assert f"a part of the store {damaged}" in _refused(damaged / "attention_summary")
    assert f"the store is its folder, {damaged}" in _refused(damaged / "zarr.json")
    for name in "abcdef":
        (tmp_path / "features" / f"{name}.zarr").mkdir(parents=True)
    shutil.move(damaged, tmp_path / "features" / "m.zarr")
    words = "a folder of 7 stores (features/a.zarr, features/b.zarr, features/c.zarr, "
    assert words + "features/d.zarr and 3 more)" in _refused(tmp_path)
    assert "a folder without any; stores are named NAME.zarr" in (
        _refused(tmp_path / "features" / "a.zarr")
    )


def test_somebody_elses_zarr(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "m.zarr")
    assert "not a feature store of vitfeat" in _refused(tmp_path / "m.zarr")


def test_another_format_version(damaged: Path) -> None:
    _edit(damaged, lambda a: a.update(format_version=5))
    assert "format version 5; this vitfeat reads 1, 2, 3 and 4: use the one" in _refused(damaged)


def test_never_sealed(damaged: Path) -> None:
    _edit(damaged, lambda a: a.pop("sealed"))
    assert "never sealed" in _refused(damaged)


def test_unfinished(tmp_path: Path) -> None:
    Content().write(tmp_path / "m.zarr", [0], seal=False)
    message = _refused(tmp_path / "m.zarr")
    assert "the extraction has not finished (m.zarr.partial is there)" in message
    assert "an unfinished store; run its extraction again" in _refused(tmp_path / "m.zarr.partial")


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
    with pytest.raises(StoreError, match=r"m\.json: not a manifest of the store beside it"):
        open_store(damaged)


def test_a_store_may_be_moved(written: Path, tmp_path: Path) -> None:
    """No path stands in it."""
    shutil.copytree(written, tmp_path / "elsewhere" / "renamed.zarr")
    store, damages = verify(tmp_path / "elsewhere" / "renamed.zarr")
    assert damages == []
    assert np.array_equal(store["cls"][:], Content().arrays()["cls"])


def test_what_to_do_names_the_manifest_where_there_is_one(damaged: Path) -> None:
    """While it is there, the workflow takes the store for done."""
    attributes = open_store(damaged).attributes
    manifest_path(damaged).write_text(json.dumps({"fingerprint": attributes["fingerprint"]}))
    flip(shard_of(damaged, "cls"), 2)
    with pytest.raises(
        StoreError,
        match=r"; run vitfeat repair, or remove it and its manifest m\.json, then extract",
    ):
        open_store(damaged)["cls"][:]
    shard_of(damaged, "cls").unlink()
    assert "or remove it and its manifest m.json, then extract it again" in _refused(damaged)
    shutil.rmtree(damaged)
    assert "no such store, but its manifest m.json is there; remove that" in _refused(damaged)
