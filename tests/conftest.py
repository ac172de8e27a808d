"""What every test may use."""

from __future__ import annotations

import logging
import os

# The models here are so small that threads cost more than they give, the more so beside another
# worker; what is proven of several threads asks for them itself. To be set before NumPy and torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from vitfeat.analyses import registry
from vitfeat.config.parsing import config_schema
from vitfeat.numerics.gram import gram
from vitfeat.numerics.gramfile import GramFile, GramMeta, write_gram_file

ROOT = Path(__file__).parent.parent

# caplog has what a command's log has.
logging.getLogger("vitfeat").setLevel(logging.INFO)


#: Files whose tests take longest come first: the last ones of a run must be short.
_LONGEST = (
    "demo/test_demo_training.py",
    "workflow/",
    "test_notebook.py",
    "models/",
    "figures/",
    "analyses/",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(ROOT / "tests").as_posix()
    starts = [place for place, start in enumerate(_LONGEST) if path.startswith(start)]
    return min(starts, default=len(_LONGEST))


@pytest.fixture(autouse=True)
def _no_analyses_of_others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what other tests made analyses of their own: a process knows them from then on."""
    monkeypatch.setattr(registry, "_own", {})
    registry.scored.cache_clear()
    yield
    registry.scored.cache_clear()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def schema() -> Mapping[str, Any]:
    return config_schema()


@pytest.fixture
def default_config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six small images of two classes."""
    folder = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for name in ("cat/a", "cat/b", "cat/c", "dog/d", "dog/e", "dog/f"):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


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
