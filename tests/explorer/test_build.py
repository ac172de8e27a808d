"""The page that is committed is what its source gives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

PAGE = ("app.css", "app.js", "index.html")


@pytest.mark.browser
def test_the_committed_page_is_what_its_source_gives(root: Path, tmp_path: Path) -> None:
    subprocess.run(["npx", "--no-install", "tsc"], cwd=root / "explorer", check=True)
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=root / "explorer", check=True)
    committed = root / "vitfeat" / "explorer" / "page"
    assert sorted(path.name for path in tmp_path.iterdir()) == list(PAGE)
    for name in PAGE:
        assert (tmp_path / name).read_bytes() == (committed / name).read_bytes(), name


def test_the_page_is_small_enough(root: Path) -> None:
    import gzip

    page = root / "vitfeat" / "explorer" / "page"
    size = sum(len(gzip.compress((page / name).read_bytes())) for name in PAGE)
    assert size < 600_000


def test_versions_are_exact_and_no_registry_is_named(root: Path) -> None:
    package = json.loads((root / "explorer" / "package.json").read_text())
    for versions in (package["dependencies"], package["devDependencies"]):
        assert all(version[0].isdigit() for version in versions.values())
    lock = json.loads((root / "explorer" / "package-lock.json").read_text())
    assert not any("resolved" in found for found in lock["packages"].values())
    assert all("integrity" in found for name, found in lock["packages"].items() if name)
