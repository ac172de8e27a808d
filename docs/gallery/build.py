"""Make the pictures of docs/gallery.md anew from the results of the embedded default.

    snakemake all results/similarity/digits/cls/pairs/demo-dino--demo-mae.png --cores 8
    python docs/gallery/build.py

Every picture that the page shows names the figure that it comes from in a comment behind it; it is
scaled down so that the repository stays small. `sheet.png`, all of them on one page, is made too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial import KDTree

DOCS = Path(__file__).resolve().parent.parent
PICTURE = re.compile(r"!\[[^]]*\]\(gallery/(?P<name>[\w.-]+\.png)\)\s*<!-- (?P<figure>\S+) -->")

SIDE = 1200
"""Longest side of a picture, in pixels."""

AREA, AREAS = 1e-4, 160
"""Share of pixels from which a colour is that of an area, and how many of them are kept at most."""

TILE, COLUMNS, TEXT = 440, 5, 16
"""Of the sheet: side of a tile, tiles in a row, and height of the line below each."""


def pictures(page: str) -> Iterator[tuple[str, str]]:
    """Yield (name of the picture, path of the figure in the results) in the order of the page."""
    for found in PICTURE.finditer(page):
        yield found["name"], found["figure"]


def shrunk(path: Path, side: int) -> Image.Image:
    """Return an image whose longest side is no longer than so many pixels."""
    with Image.open(path) as image:
        made = image.convert("RGB")
    made.thumbnail((side, side), Image.Resampling.LANCZOS)
    return made


def saved(image: Image.Image, path: Path) -> None:
    """Write an image with 256 colours, a third of the bytes."""
    codes = np.asarray(image).astype(np.int64) @ (1 << 16, 1 << 8, 1)
    colours, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    # Those of areas, such as pale bands, as they are; the others' palette covers thin lines too.
    areas = colours[np.argsort(-counts)][: min(AREAS, (counts > AREA * codes.size).sum())]
    cover = image.quantize(256 - len(areas), Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = np.vstack([_parts(areas), np.reshape(cover, (-1, 3))[: 256 - len(areas)]])
    _, nearest = KDTree(palette).query(_parts(colours))
    few = Image.fromarray(nearest.astype(np.uint8)[places.reshape(codes.shape)], "P")
    few.putpalette(palette.astype(np.uint8).tobytes())
    few.save(path, optimize=True)


def _parts(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Red, green and blue of colours as one number each."""
    return codes[:, None] >> (16, 8, 0) & 255


def sheet(tiles: list[tuple[str, Image.Image]]) -> Image.Image:
    """Put all pictures on one page, with the figures' names below them."""
    rows = -(-len(tiles) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + TEXT)), "white")
    draw = ImageDraw.Draw(page)
    for index, (name, image) in enumerate(tiles):
        left, top = index % COLUMNS * TILE, index // COLUMNS * (TILE + TEXT)
        image.thumbnail((TILE - 12, TILE - 8), Image.Resampling.LANCZOS)
        page.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
        draw.text((left + 6, top + TILE), name, fill="black")
    return page


def main(results: Path) -> None:
    """Write all pictures into docs/gallery."""
    folder, tiles = DOCS / "gallery", []
    shown = list(pictures((DOCS / "gallery.md").read_text("utf-8")))
    if absent := [figure for _, figure in shown if not (results / figure).is_file()]:
        sys.exit(f"{results} has no {', '.join(absent)}: run snakemake for the default first")
    for name, figure in shown:
        image = shrunk(results / figure, SIDE)
        saved(image, folder / name)
        tiles.append((figure, image))
    saved(sheet(tiles), folder / "sheet.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS.parent / "results")
