"""The script that makes the pictures of docs/gallery.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vitfeat.figures import style

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery_build", DOCS / "gallery" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(path: Path) -> None:
    """A figure with lines in all families' colours, pale bands around them and a grey area."""
    with style.settings():
        figure = Figure(figsize=(7.4, 4))
        ax = figure.subplots()
        x = np.arange(12)
        for at, colour in enumerate(style.FAMILY_COLOURS.values()):
            ax.plot(x, at + np.sin(x + at), color=colour, label=str(at))
            ax.fill_between(x, at - 0.2, at + 0.2, color=colour, alpha=0.13, lw=0)
        ax.fill_between(x, -3, -1, color="#F1F1F1", lw=0)
        ax.fill_between(x, -5, -3, color="#F6EFEF", lw=0)
        ax.legend()
        style.save(figure, path)


def test_pale_bands_and_lines_keep_their_colours(build: ModuleType, tmp_path: Path) -> None:
    made(tmp_path / "whole.png")
    image = build.shrunk(tmp_path / "whole.png", build.SIDE)
    build.saved(image, tmp_path / "small.png")
    before = np.asarray(image).astype(int)
    with Image.open(tmp_path / "small.png") as small:
        after = np.asarray(small.convert("RGB")).astype(int)
    # Every colour of an area, however pale, is there to a level, and grey stays grey.
    colours, counts = np.unique(before.reshape(-1, 3), axis=0, return_counts=True)
    areas = colours[counts > 1000]
    assert len(areas) > 10
    for colour in areas:
        found = after[(before == colour).all(-1)]
        assert np.abs(found - colour).max() <= 1, colour
        if np.ptp(colour) == 0:
            assert np.ptp(found, axis=-1).max() <= 1, colour
    # Thin lines, too.
    assert np.abs(after - before).mean() < 0.5
    assert (tmp_path / "small.png").stat().st_size < 0.5 * (tmp_path / "whole.png").stat().st_size


def test_every_picture_names_a_figure_and_every_figure_has_one(build: ModuleType) -> None:
    page = (DOCS / "gallery.md").read_text("utf-8")
    shown = dict(build.pictures(page))
    assert len(shown) == page.count("](gallery/") - 1  # all but the sheet
    assert {path.name for path in (DOCS / "gallery").glob("*.png")} == {*shown, "sheet.png"}


def test_figures_that_are_not_there_are_named(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["build.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"has no cka/all\.png, .*: run snakemake"):
        build.main(tmp_path)
