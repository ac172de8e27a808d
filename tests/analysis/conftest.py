from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from vitfeat.analysis.cka.gram import gram
from vitfeat.analysis.cka.gramfile import GramFile, GramMeta, write_gram_file

MakeFile = Callable[..., GramFile]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """A Gram file of the given layers' features."""

    def make(layers: Sequence[np.ndarray], model: str = "m", **meta: str) -> GramFile:
        fields = {
            "dataset": "d",
            "tokens": "cls",
            "image_fingerprint": "i",
            "features_fingerprint": "f",
        } | meta
        path = tmp_path / f"{model}.{len(list(tmp_path.iterdir()))}.safetensors"
        grams = (gram(lambda a, b, x=x: x[a:b], len(x)) for x in layers)
        write_gram_file(path, range(len(layers)), grams, GramMeta(model=model, **fields))
        return GramFile(path)

    return make


@pytest.fixture
def features(rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """Features that share some structure, so that CKA between two of them is no edge case."""
    shared = rng.normal(size=(200, 3))

    def draw(n: int, d: int, noise: float = 1.0) -> np.ndarray:
        values = shared[:n] @ rng.normal(size=(3, d)) + noise * rng.normal(size=(n, d))
        return (values + rng.normal(size=d)).astype(np.float32)

    return draw
