"""Stores whose arrays go after use: set aside, whole, dropped, and dropped in this moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.store.filled import Content, copied, files
from vitfeat.errors import StoreError
from vitfeat.store.opening import open_store
from vitfeat.store.paths import set_aside, transient_path
from vitfeat.store.verify import verify

KEPT = ("cls", "registers")


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    path = tmp_path / "m.1.zarr"
    copied(written, path)
    return path


def test_arrays_that_are_set_aside_are_read_as_before(store: Path) -> None:
    before = {name: array[:] for name, array in open_store(store).items()}
    set_aside(store, KEPT)
    held = sorted(p.name for p in transient_path(store).iterdir())
    assert held == ["attention", "attention_summary", "spatial"]
    assert transient_path(store).name == "m.1.transient"
    # Once more changes nothing.
    set_aside(store, KEPT)
    opened, damages = verify(store)
    assert damages == []
    assert list(opened) == list(before)
    for name, values in before.items():
        np.testing.assert_array_equal(opened[name][:], values)


def test_what_is_dropped_is_said_and_all_else_is_whole(store: Path) -> None:
    kept = {n: data for n, data in files(store).items() if n.split("/")[0] not in _taps(store)}
    set_aside(store, KEPT)
    shutil.rmtree(transient_path(store))
    opened, damages = verify(store)
    assert damages == []
    assert list(opened) == list(KEPT)
    assert {name.partition("/")[0] for name in opened.dropped} == _taps(store)
    assert "dropped after use: spatial, attention, " in repr(opened)
    for name in opened.dropped:
        with pytest.raises(StoreError, match=f"{name} was dropped after use, as extraction.keep"):
            opened[name]
    assert files(store) == kept
    # Another store in its place keeps everything.
    shutil.rmtree(store)
    Content().write(store)
    assert open_store(store).dropped == ()


def _taps(store: Path) -> set[str]:
    return {name.partition("/")[0] for name in open_store(store).attributes["sealed"]["arrays"]} - {
        *KEPT
    }


def test_a_store_opens_while_its_arrays_go(store: Path) -> None:
    set_aside(store, KEPT)
    for path in sorted(transient_path(store).rglob("*")):
        if path.is_file():
            path.unlink()
            assert np.isfinite(open_store(store)["cls"][:]).all()


def test_what_stays_is_as_guarded_as_ever(store: Path) -> None:
    set_aside(store, KEPT)
    (shard,) = store.glob("cls/c.0.*")
    shard.unlink()
    with pytest.raises(StoreError, match="shard 0 of cls is missing"):
        open_store(store)


def test_a_shard_that_is_cut_is_no_dropped_one(store: Path) -> None:
    set_aside(store, KEPT)
    (shard,) = transient_path(store).glob("spatial/c.0.*")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"shard 0 of spatial has [\d,]+ bytes"):
        open_store(store)
