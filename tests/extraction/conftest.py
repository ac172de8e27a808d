from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from tests.extraction.pictures_folder import (
    ALL,
    make_backbone,
    make_index,
    plain_forward,
    seen_images,
    write_images,
)
from vitfeat.data.index import Index
from vitfeat.extraction.run import extract
from vitfeat.models.backbone import Backbone


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of eight: 22 images are two whole ones and a short one."""
    monkeypatch.setattr("vitfeat.store.layout._MAX_BLOCK", 8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    write_images(path)
    return path


@pytest.fixture(scope="session")
def index(folder: Path) -> Index:
    return make_index(folder)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """With registers, so that every tap has something to store."""
    return make_backbone()


@pytest.fixture(scope="session")
def images(backbone: Backbone, index: Index, folder: Path) -> Tensor:
    return seen_images(backbone, index, folder)


@pytest.fixture(scope="session")
def truth(backbone: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    return plain_forward(backbone, images)


@pytest.fixture(scope="session")
def whole(
    tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, index: Index, folder: Path
) -> Path:
    """All taps by one job in one go: three blocks, with a shard of all images for every array."""
    out = tmp_path_factory.mktemp("whole") / "m.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitfeat.store.layout._MAX_BLOCK", 8)
        extract(backbone, index, folder, out, ALL)
    return out
