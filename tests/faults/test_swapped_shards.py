"""Whole shards, and chunks, in another's place: as long as it is, with checksums that are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.store.filled import Content, copied, files, shard_of
from vitfeat.errors import StoreError
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify


class OtherNumbers(Content):
    """The same request with other numbers, as another machine may have them."""

    @property
    def request(self) -> dict[str, Any]:
        return CONTENT.request


# Blosc leaves chunks of 64 bytes as they are, so that all of a shape have one length.
SMALL: dict[str, Any] = {"taps": ("cls", "block_input", "attn_branch"), "block": 4, "span": 4}
CONTENT = Content(**SMALL)
NAME, SHARD = "block_input/cls", 2
OTHERS = {
    "another array": (CONTENT, "attn_branch/cls", SHARD),
    "another block": (CONTENT, NAME, 3),
    "another store": (Content(**SMALL, seed=1), NAME, SHARD),
}
SAME_REQUEST = {"the same request": (OtherNumbers(**SMALL, seed=1), NAME, SHARD)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.zarr"
    CONTENT.write(path)
    return path


def _swap(store: Path, folder: Path, other: tuple[Content, str, int]) -> None:
    """Put another store's shard in the place of one of as many bytes."""
    content, name, shard = other
    content.write(folder / "other.zarr")
    file, source = shard_of(store, NAME, SHARD), shard_of(folder / "other.zarr", name, shard)
    assert len(file.read_bytes()) == len(source.read_bytes())
    assert file.read_bytes() != source.read_bytes()
    file.write_bytes(source.read_bytes())


@pytest.mark.parametrize("other", OTHERS | SAME_REQUEST)
def test_another_shard_is_told_by_who_reads_it_and_by_verify(
    whole: Path, tmp_path: Path, other: str
) -> None:
    path = copied(whole, tmp_path / "m.zarr")
    _swap(path, tmp_path, (OTHERS | SAME_REQUEST)[other])
    store = open_store(path)
    expected = CONTENT.arrays()[NAME]
    first, stop = 4 * SHARD, 4 * SHARD + 4
    assert np.array_equal(store[NAME][:first], expected[:first])
    for index in (np.s_[first, 1], np.s_[:, -1], np.s_[first:stop]):
        with pytest.raises(StoreError, match=f"cannot be decoded .*shard {SHARD} is"):
            store[NAME][index]
    assert [(d.array, d.shard) for d in verify(path)[1]] == [(NAME, SHARD)]


def test_another_chunk_of_the_same_shard_is_told(whole: Path, tmp_path: Path) -> None:
    path = copied(whole, tmp_path / "m.zarr")
    file = shard_of(path, NAME, SHARD)
    content = file.read_bytes()
    length = 16 + 64 + 4  # Blosc's header, the numbers, a checksum
    file.write_bytes(content[length : 2 * length] + content[:length] + content[2 * length :])
    store = open_store(path)
    with pytest.raises(StoreError, match=f"a chunk of shard {SHARD} stands in another's place"):
        store[NAME][4 * SHARD, 0]
    assert np.array_equal(store[NAME][4 * SHARD, 2], CONTENT.arrays()[NAME][4 * SHARD, 2])
    assert [(d.array, d.shard) for d in verify(path)[1]] == [(NAME, SHARD)]


@pytest.mark.parametrize("blocks", [range(6), [0, 1, 2, 5]], ids=["all blocks", "some blocks"])
@pytest.mark.parametrize("other", OTHERS)
def test_another_shard_in_an_unfinished_store_is_made_anew(
    whole: Path, tmp_path: Path, other: str, blocks: Any
) -> None:
    path = tmp_path / "m.zarr"
    CONTENT.write(path, blocks, seal=False)
    _swap(partial_path(path), tmp_path, OTHERS[other])
    missing, _ = CONTENT.write(path)
    assert SHARD in missing
    assert files(path) == files(whole)
