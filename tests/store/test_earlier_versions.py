"""Stores that earlier versions of vitfeat wrote, in bytes: they open, and damage is told."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.store.filled import GEOMETRY, Content
from vitfeat.errors import StoreError
from vitfeat.store.info import describe
from vitfeat.store.layout import ATTRIBUTE
from vitfeat.store.opening import open_store
from vitfeat.store.verify import verify

WITHOUT_REGISTERS = replace(GEOMETRY, n_registers=0)
GRIDS = np.array([[2, 3], [3, 2], [2, 2], [1, 3], [2, 4]])
# What they were written from: 5 images in blocks of 2.
CONTENTS = {
    1: Content(geometry=WITHOUT_REGISTERS, taps=("cls",), n_images=5, block=2),
    2: Content(
        geometry=WITHOUT_REGISTERS,
        taps=("cls", "attention"),
        n_images=5,
        block=2,
        kept={"attention": (1, 3)},
    ),
    3: Content(
        geometry=replace(WITHOUT_REGISTERS, ragged=True),
        taps=("cls", "spatial", "regions"),
        n_images=5,
        block=2,
        starts={
            "spatial": (0, *np.cumsum(GRIDS.prod(1)).tolist()),
            "regions": (0, 2, 2, 3, 3, 5),
        },
        grid_shapes=GRIDS,
        regions=np.arange(5) * 2 + 5,
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("earlier_versions.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.parametrize("version", [1, 2, 3])
def test_its_numbers_are_what_was_written(folder: Path, version: int) -> None:
    path, content = folder / f"version_{version}.zarr", CONTENTS[version]
    store, damages = verify(path)
    assert damages == []
    assert store.attributes["format_version"] == version
    assert store.image_ids == list(content.rows.image_id)
    assert store.labels.tolist() == content.rows.label.tolist()
    dataset = store.to_xarray()
    for name, expected in content.arrays().items():
        assert np.array_equal(store[name][:], expected)
        assert np.array_equal(dataset[name].values, expected)
    if version == 2:
        assert store.rows("attention").tolist() == [1, 3]
    if version == 3:
        assert store.tokens(4, 1).shape == (2, 4, 8)
    text = "\n".join(describe(store))
    assert f"format       {version}, sealed without checksums of its metadata" in text


def test_its_summaries_can_be_read(folder: Path) -> None:
    """Only the attention metrics ask for another definition of one of them."""
    store = open_store(folder / "version_1.zarr")
    assert store["attention_summary/entropy"][:, -1].shape == (5, 2)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("cut", [0, -1])
def test_a_cut_file_is_told_on_opening(folder: Path, version: int, cut: int) -> None:
    path = folder / f"version_{version}.zarr"
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        content = file.read_bytes()
        file.write_bytes(content[:cut])
        name = str(file.relative_to(path))
        # Of coordinates and their metadata that seal has nothing; their own checksums tell.
        if (cut == 0 and not name.endswith("zarr.json")) or name.partition("/")[0] in ("cls",):
            with pytest.raises(StoreError, match=r"m?zarr: .* (is empty|has [\d,]+ bytes)"):
                open_store(path)
        file.write_bytes(content)
    open_store(path)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_absent_file_is_told_on_opening(folder: Path, version: int) -> None:
    path = folder / f"version_{version}.zarr"
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        content = file.read_bytes()
        file.unlink()
        name = str(file.relative_to(path))
        if not name.startswith("final_norm/zarr.json"):
            with pytest.raises(StoreError, match=r"(is|are) missing"):
                open_store(path)
        file.write_bytes(content)


def test_a_request_that_was_changed_is_told(folder: Path) -> None:
    path = folder / "version_1.zarr" / "zarr.json"
    root = json.loads(path.read_text())
    root["attributes"][ATTRIBUTE]["request"]["layers"][0] = 0
    path.write_text(json.dumps(root))
    with pytest.raises(StoreError, match="are not as they were when the store was sealed"):
        open_store(path.parent)


def test_metadata_that_hold_anything_are_one_line(folder: Path) -> None:
    """Without a hash, whatever stands there reaches the readers."""
    path = folder / "version_1.zarr" / "zarr.json"
    text = path.read_text()
    root = json.loads(text)
    for change in ("shape", "data_type", "chunk_grid", "codecs", "dimension_names"):
        cls = root["consolidated_metadata"]["metadata"]["cls"]
        kept = cls.pop(change)
        path.write_text(json.dumps(root))
        with pytest.raises(StoreError, match="metadata") as info:
            open_store(path.parent)["cls"][:]
        assert "\n" not in str(info.value)
        cls[change] = kept
    for key in ("request", "fingerprint", "sealed"):
        broken = json.loads(text)
        broken["attributes"][ATTRIBUTE][key] = 3
        path.write_text(json.dumps(broken))
        with pytest.raises(StoreError) as info:
            open_store(path.parent)
        assert "\n" not in str(info.value)


def test_rows_that_cannot_be_are_told(folder: Path) -> None:
    path = folder / "version_2.zarr"
    import zarr

    for rows in ([3, 1], [1, 5], [-1, 2]):
        zarr.open_group(path, mode="r+")["attention_image"][:] = rows  # type: ignore[index]
        with pytest.raises(StoreError, match="does not say which rows attention holds"):
            open_store(path).rows("attention")
        with pytest.raises(StoreError, match="does not say which rows"):
            verify(path)
