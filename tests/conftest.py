"""What every test may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text("utf-8"))


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
