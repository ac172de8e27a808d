from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.pictures import MakeTree, encode, noise


@pytest.fixture
def tree(tmp_path: Path) -> MakeTree:
    """Write files below a fresh root: images of their own by name, other contents by keyword."""
    root = tmp_path / "data"

    def make(*images: str, contents: dict[str, bytes] | None = None) -> Path:
        root.mkdir(exist_ok=True)
        files = {name: encode(noise(place)) for place, name in enumerate(images)}
        for name, data in (files | (contents or {})).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return root

    return make
