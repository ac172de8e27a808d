"""What a store tells of its token grid, whatever arrays it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.filled import Content, resealed
from vitfeat.errors import StoreError
from vitfeat.store.opening import open_store


@pytest.mark.parametrize("taps", [("cls",), ("attention",), ("spatial", "attention_summary")])
def test_every_store_tells_its_grid(tmp_path: Path, taps: tuple[str, ...]) -> None:
    Content(taps=taps).write(tmp_path / "a.zarr")
    assert open_store(tmp_path / "a.zarr").grid == (2, 3)


def forget(store: Path) -> None:
    """Take the grid out of the attributes, as an earlier vitfeat wrote them."""
    resealed(store, lambda attributes: attributes.pop("grid"))


@pytest.mark.parametrize("taps", [("cls", "spatial"), ("attention_summary",)])
def test_earlier_stores_tell_it_by_their_arrays(tmp_path: Path, taps: tuple[str, ...]) -> None:
    Content(taps=taps).write(tmp_path / "a.zarr")
    forget(tmp_path / "a.zarr")
    assert open_store(tmp_path / "a.zarr").grid == (2, 3)


def test_an_earlier_store_without_such_an_array(tmp_path: Path) -> None:
    Content(taps=("cls", "attention")).write(tmp_path / "a.zarr")
    forget(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="does not tell the rows and columns of its token grid"):
        _ = open_store(tmp_path / "a.zarr").grid
