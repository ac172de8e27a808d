"""A bit turned anywhere in an unfinished store, or any attribute of a sealed one changed.

It is done again or told, never taken for whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.counts import times
from tests.store.filled import Content, copied, files, flip
from vitfeat.errors import StoreError
from vitfeat.store.opening import open_store
from vitfeat.store.paths import partial_path
from vitfeat.store.verify import verify

CONTENT = Content(taps=("cls", "spatial", "attention"), span=16, kept={"attention": (3, 9, 21)})

CHANGES = times(20, 100)


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


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of nested JSON: what it is in, and its key there."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _leaves(value[key])


def _other(value: Any) -> Any:
    """Return another value of the same kind, as small a change as can be."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return [*value, 0] if isinstance(value, list) else value | {"more": 0}


@pytest.mark.parametrize("seed", range(CHANGES))
def test_metadata_changed_in_a_sealed_store_are_refused(
    whole: Path, tmp_path: Path, seed: int
) -> None:
    path = copied(whole, tmp_path / "m.zarr")
    choose = np.random.default_rng(seed)
    # Half of them in the store's own, which have everything once more.
    some = [path / "zarr.json"] if seed % 2 else sorted(path.rglob("zarr.json"))
    file = some[choose.integers(len(some))]
    root = json.loads(file.read_text("utf-8"))
    places = [*_leaves(root)]
    holder, key = places[choose.integers(len(places))]
    holder[key] = _other(holder[key])
    file.write_text(json.dumps(root, indent=2), "utf-8")
    with pytest.raises(StoreError):
        open_store(path)
