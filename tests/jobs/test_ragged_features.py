"""Features of whole images from stores whose images have token grids of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.store.filled import GEOMETRY, Content
from vitfeat.analyses.cka.gram_job import write_grams
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.clustering.job import write_clustering
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.rows import read_scores
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import image_rows
from vitfeat.numerics.gramfile import GramFile
from vitfeat.store.opening import open_store

GRIDS = np.array([[2 + i % 3, 3 + i % 4] for i in range(22)])
STARTS = (0, *np.cumsum(GRIDS.prod(1)).tolist())


@dataclass(frozen=True)
class Ragged(Content):
    """Tokens that tell the label of their image: labels are -1, 0 and 1 by turns."""

    taps: tuple[str, ...] = ("cls", "spatial")

    def arrays(self) -> dict[str, NDArray[Any]]:
        arrays = super().arrays()
        label = np.repeat(self.rows.label, GRIDS.prod(1))
        arrays["spatial"] += (20 * label[:, None, None]).astype(np.float16)
        return arrays


CONTENT = Ragged(
    geometry=replace(GEOMETRY, ragged=True), starts={"spatial": STARTS}, grid_shapes=GRIDS
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    CONTENT.write(tmp_path / "digits" / "m.zarr")
    return tmp_path / "digits" / "m.zarr"


def means(layer: int) -> NDArray[np.float64]:
    """(image, channel), from what was written and the definition."""
    tokens = CONTENT.arrays()["spatial"][:, layer].astype(np.float64)
    return np.stack([sum(tokens[a:b]) / (b - a) for a, b in pairwise(STARTS)])


@pytest.mark.parametrize("max_bytes", [2**30, 4000])
def test_gram_of_means(store: Path, tmp_path: Path, max_bytes: int) -> None:
    out = tmp_path / "g.safetensors"
    write_grams(store, out, CkaSettings(tokens=["mean"]), max_bytes=max_bytes)
    file = GramFile(tmp_path / "g.safetensors")
    for layer in range(len(GEOMETRY.layers)):
        centred = means(layer) - means(layer).mean(0)
        np.testing.assert_allclose(
            file.gram(layer).centred, centred @ centred.T, rtol=1e-4, atol=1e-2
        )


@pytest.mark.parametrize("tokens", ["spatial", "all"])
def test_flattened_tokens_are_refused(store: Path, tmp_path: Path, tokens: str) -> None:
    with pytest.raises(AnalysisError, match=rf"different numbers of tokens.*'{tokens}'.*take cls"):
        write_grams(store, tmp_path / "g.safetensors", CkaSettings(tokens=[tokens]))
    assert not (tmp_path / "g.safetensors").exists()


def test_clusters_of_means_are_the_classes(store: Path, tmp_path: Path) -> None:
    settings = ClusteringSettings(features=("mean",), seeds=1, n_init=2, shuffled=False)
    write_clustering(store, tmp_path / "c.csv", settings)
    rows = read_scores(tmp_path / "c.csv")
    labelled = int((CONTENT.rows.label != -1).sum())
    assert {row.n for row in rows} == {labelled}
    assert {round(row.value, 6) for row in rows if row.score in ("nmi", "ari", "purity")} == {1.0}


def test_all_images_have_means(store: Path) -> None:
    assert image_rows(open_store(store), "mean").tolist() == list(range(22))
