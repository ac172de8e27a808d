"""A small folder of results, with names that break out of a page that does not escape them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.store.filled import Content as Filled
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import Content
from vitfeat.explorer.server import Server
from vitfeat.store.writer import Rows

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CLASSES = ("<script>alert(1)<", "b&amp;")
IMAGES = ('"><img src=x onerror=alert(1)>', "ï 2", "3")


@dataclass(frozen=True)
class FromIndex(Filled):
    """Random numbers of the images of an index."""

    index: Index | None = None

    @property
    def rows(self) -> Rows:
        assert self.index is not None
        return Rows(
            image_id=self.index.image_id,
            label=np.asarray(self.index.label),
            classes=dict(enumerate(CLASSES)),
            skipped=[],
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Make the numbers: a token of every image is of high norm in the last layer."""
        arrays = super().arrays()
        for image, tokens in enumerate(arrays["spatial"][:, -1]):
            tokens.reshape(-1, tokens.shape[-1])[image] *= 10
        return arrays


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two models, with their images beside them; no test may change them."""
    folder = tmp_path_factory.mktemp("explored")
    generator = np.random.default_rng(0)
    for name in CLASSES:
        for image in IMAGES:
            path = folder / "images" / name / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    spec = DatasetSpec(name="d", layout="folder", root=folder / "images")
    index = build_index(spec)
    results = folder / "results"
    (results / "datasets").mkdir(parents=True)
    index.write(results / "datasets" / "d.csv")
    for seed, model in enumerate(("a", "b")):
        FromIndex(
            index=index,
            n_images=len(index),
            seed=seed,
            taps=("cls", "registers", "spatial", "attention", "attention_summary"),
            kept={"attention": (1, 4)},
        ).write(results / "features" / "d" / f"{model}.zarr")
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy of the results, for a test to change."""
    return shutil.copytree(made / "results", tmp_path / "results", symlinks=True)


@pytest.fixture(scope="session")
def served(made: Path) -> Iterator[Server]:
    """The results, served."""
    roots = {"d": made / "images"}
    server = Server(Content(Results.of(made / "results", None, roots)))
    with server.running():
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests of a run."""
    from tests.explorer.browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def default(root: Path) -> Path:
    """The embedded default's results."""
    from tests.explorer.browser import results_of_the_default

    return results_of_the_default(root)


@pytest.fixture(scope="session")
def link(root: Path, default: Path) -> Iterator[str]:
    """Where the embedded default's results are served."""
    server = Server(Content(Results.of(default, root / "config.yaml", {})))
    with server.running() as where:
        yield where
