from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.filled import Content, copied


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole store that no test may change."""
    path = tmp_path_factory.mktemp("store") / "m.zarr"
    Content().write(path)
    return path


@pytest.fixture
def damaged(written: Path, tmp_path: Path) -> Path:
    """A copy of the store, for a test to damage."""
    return copied(written, tmp_path / "m.zarr")
