"""Shards that reach over blocks: put together when these are there, by whoever has them all."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.store.filled import Content, files, flip, shard_of
from tests.store.test_limited_store import CONTENT as LIMITED
from tests.store.test_ragged_store import RAGGED
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify
from vitfeat.store.writer import open_writer

# Of 22 images in blocks of 8: a shard of two blocks and one of a short block; one shard of all.
PAIRS = Content(span=16)
CONTENTS = {
    "pairs": PAIRS,
    "one": Content(span=32),
    "limited": replace(LIMITED, span=16),
    "ragged": replace(RAGGED, span=16),
}
PIPELINES = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


@pytest.fixture(scope="module", params=list(CONTENTS))
def content(request: pytest.FixtureRequest) -> Content:
    return CONTENTS[request.param]


@pytest.fixture(scope="module")
def whole(content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.zarr"
    content.write(path)
    return path


def _open(path: Path, content: Content) -> Any:
    return open_writer(path, content.layout, content.geometry, content.rows, content.request, "m")


def _pieces(path: Path) -> list[str]:
    return sorted(p.stem for p in (partial_path(path) / ".progress").glob("*.pieces"))


@pytest.mark.parametrize("pipeline", list(PIPELINES))
def test_other_readers_read_what_went_in(content: Content, whole: Path, pipeline: str) -> None:
    with zarr.config.set({"codec_pipeline.path": PIPELINES[pipeline]}):
        group: Any = zarr.open_group(whole, mode="r")
        for name, values in content.arrays().items():
            assert np.array_equal(group[name][:], values), name
            assert np.array_equal(group[name][:, 1], values[:, 1]), name


def test_what_went_in_comes_out(content: Content, whole: Path) -> None:
    store, damages = verify(whole)
    assert damages == []
    for name, values in content.arrays().items():
        array = store[name]
        assert np.array_equal(array[:], values), name
        assert np.array_equal(array[0], values[0]), name
        assert np.array_equal(array[-1, 2], values[-1, 2]), name


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_blocks_in_any_order_give_the_same_bytes(
    content: Content, whole: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    path = tmp_path / "m.zarr"
    content.write(path, order[:2], seal=False)
    assert content.write(path)[0] == [order[2]]
    assert files(path) == files(whole)


def test_pieces_go_when_their_shards_are_there(tmp_path: Path) -> None:
    path, layout = tmp_path / "m.zarr", PAIRS.layout
    spatial = partial_path(path) / "spatial"
    with _open(path, PAIRS) as writer:
        for block, pieces, shards in ((1, ["000001"], []), (2, ["000001"], [1]), (0, [], [0, 1])):
            rows = layout.rows(block)
            writer.write_block(block, PAIRS.part(rows), forward_images=len(rows))
            assert _pieces(path) == pieces
            assert sorted(p.name for p in spatial.glob("c.*")) == [f"c.{s}.0.0.0.0" for s in shards]


# --- What does not match its checksum ---


def _written(path: Path, blocks: list[int]) -> Path:
    PAIRS.write(path, blocks, seal=False)
    return partial_path(path)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_pieces_that_were_changed_are_pushed_again(tmp_path: Path, place: int) -> None:
    partial = _written(tmp_path / "m.zarr", [0])
    flip(partial / ".progress/000000.pieces", place)
    with _open(tmp_path / "m.zarr", PAIRS) as writer:
        assert (writer.missing_blocks(), writer.damaged) == ([0, 1, 2], [0])


@pytest.mark.parametrize("place", [0, 3, 20, 40, -3])
def test_a_marker_that_was_changed_is_none(tmp_path: Path, place: int) -> None:
    partial = _written(tmp_path / "m.zarr", [0, 2])
    flip(partial / ".progress/000002", place, bit=1)
    with _open(tmp_path / "m.zarr", PAIRS) as writer:
        assert (writer.missing_blocks(), writer.damaged) == ([1, 2], [2])


@pytest.mark.parametrize("place", [0, 50, -3, -30])
def test_blocks_of_a_shard_that_was_changed_are_pushed_again(tmp_path: Path, place: int) -> None:
    path = tmp_path / "m.zarr"
    partial = _written(path, [0, 1])
    flip(shard_of(partial, "cls", 0), place)
    with _open(path, PAIRS) as writer:
        assert (writer.missing_blocks(), writer.damaged) == ([0, 1, 2], [0, 1])
    PAIRS.write(path)
    assert verify(path)[1] == []


def test_what_is_cut_or_empty_is_pushed_again(tmp_path: Path) -> None:
    partial = _written(tmp_path / "m.zarr", [0, 1, 2])
    shard_of(partial, "spatial", 1).write_bytes(b"")
    with _open(tmp_path / "m.zarr", PAIRS) as writer:
        assert writer.missing_blocks() == [2]
    PAIRS.write(tmp_path / "m.zarr")
    assert verify(tmp_path / "m.zarr")[1] == []


def test_notes_of_blocks_are_in_the_store_once(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    for block in range(3):
        with _open(path, PAIRS) as writer:
            writer.note("halved")
            writer.note(f"note {min(block, 1)}")
            rows = PAIRS.layout.rows(block)
            writer.write_block(block, PAIRS.part(rows), forward_images=len(rows))
    PAIRS.write(path)
    assert open_store(path).attributes["notes"] == ["halved", "note 0", "note 1"]
