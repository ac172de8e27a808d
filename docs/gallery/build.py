"""Make the pictures of docs/gallery.md anew from the results of the embedded default.

    snakemake --cores 8 && python docs/gallery/build.py

Every picture that the page shows names the figure that it comes from in a comment behind it; it is
scaled down so that the repository stays small. `sheet.png`, all of them on one page, is made too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

DOCS = Path(__file__).resolve().parent.parent
PICTURE = re.compile(r"!\[[^]]*\]\(gallery/(?P<name>[\w.-]+\.png)\)\s*<!-- (?P<figure>\S+) -->")

SIDE = 1200
"""Longest side of a picture, in pixels."""

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
    for name, figure in pictures((DOCS / "gallery.md").read_text("utf-8")):
        image = shrunk(results / figure, SIDE)
        image.quantize(255, Image.Quantize.MAXCOVERAGE).save(folder / name, optimize=True)
        tiles.append((figure, image))
    sheet(tiles).quantize(255).save(folder / "sheet.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS.parent / "results")
