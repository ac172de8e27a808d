"""A bit turned anywhere in an unfinished store: done again or told, never taken for whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.store.filled import Content, files, flip
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify

CONTENT = Content(taps=("cls", "spatial", "attention"), span=16, kept={"attention": (3, 9, 21)})

#: `VITFEAT_CHANGES=100` asks for more.
CHANGES = int(os.environ.get("VITFEAT_CHANGES", "20"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.zarr"
    CONTENT.write(path)
    return path


def _turn_a_bit(partial: Path, seed: int) -> Path:
    """Of metadata, coordinates, shards, pieces or markers alike."""
    choose = np.random.default_rng(seed)
    kinds: dict[str, list[Path]] = {}
    for path in sorted(partial.rglob("*")):
        if path.is_file() and path.stat().st_size and path.suffix != ".claim":
            inside = path.parent.name == ".progress"
            kind = path.suffix or "marker" if inside else path.name.split(".")[0]
            kinds.setdefault(kind, []).append(path)
    some = kinds[sorted(kinds)[choose.integers(len(kinds))]]
    path = some[choose.integers(len(some))]
    flip(path, int(choose.integers(path.stat().st_size)), int(choose.integers(8)))
    return path


@pytest.mark.parametrize("seed", range(CHANGES))
def test_of_a_store_with_blocks_missing_all_is_right_in_the_end(
    whole: Path, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "m.zarr"
    CONTENT.write(path, [0, 1] if seed % 2 else [2, 0], seal=False)
    _turn_a_bit(partial_path(path), seed)
    CONTENT.write(path, replacing=True)
    assert files(path) == files(whole)


@pytest.mark.parametrize("seed", range(CHANGES))
def test_of_a_store_that_only_lacks_its_seal_it_is_told(
    whole: Path, tmp_path: Path, seed: int
) -> None:
    """Shards are not read once more for the seal: their own checksums tell whoever reads them."""
    path = tmp_path / "m.zarr"
    CONTENT.write(path, [0, 1, 2], seal=False)
    changed = _turn_a_bit(partial_path(path), seed)
    CONTENT.write(path, replacing=True)
    if files(path) != files(whole):
        assert changed.name.startswith("c.")
        assert len(verify(path)[1]) == 1
