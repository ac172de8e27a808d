"""The examples in docs/store.md and in the docstrings of readers run, on a store of six images."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

import vitfeat
from tests.store.filled import Content
from vitfeat.data import views
from vitfeat.store import reader
from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class Animals(Content):
    """Six images of cats and dogs."""

    @property
    def rows(self) -> Rows:
        ids = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]
        return Rows(ids, np.repeat([0, 1], 3), {0: "cat", 1: "dog"}, [])


ANIMALS = Animals(
    Geometry((0, 1, 2), 4, 2, (2, 2), has_cls=True, n_registers=0),
    ("cls", "spatial"),
    n_images=6,
)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> reader.FeatureStore:
    monkeypatch.chdir(tmp_path)
    path = Path("features/animals/tiny.zarr")
    ANIMALS.write(path)
    return vitfeat.open(path)


def test_the_examples_of_the_page_run(opened: reader.FeatureStore, root: Path) -> None:
    page = str(root / "docs/store.md")
    results = doctest.testfile(page, module_relative=False, optionflags=OPTIONS)
    assert results.attempted > 12
    assert results.failed == 0


@pytest.mark.parametrize("module", [reader, views], ids=lambda m: m.__name__)
def test_the_examples_of_the_docstrings_run(opened: reader.FeatureStore, module: object) -> None:
    results = doctest.testmod(module, extraglobs={"store": opened}, optionflags=OPTIONS)  # type: ignore[arg-type]
    assert results.attempted > 1
    assert results.failed == 0
