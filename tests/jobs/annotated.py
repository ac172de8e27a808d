"""A small dataset with masks, and stores of random attention and region features of it.

The view shows 8 x 12 pixels in tokens of 4 x 4, so that a token is 8 x 8 pixels of every image.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.analyses.attention_maps.attended import Attended, random_attention
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.cli import main
from vitfeat.data.annotations import RegionRow
from vitfeat.data.index import Index
from vitfeat.data.regions import encode
from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows
from vitfeat.tables import write_table

TOKENS = Tokens((2, 3), has_cls=True, n_registers=1)
LAYERS = (0, 2)
HEADS = 3
N_IMAGES = 7
#: Width and left edge of the crop; all are 16 pixels high.
WIDTHS = {0: (24, 0), 1: (40, 8)}


def width(image: int) -> int:
    return WIDTHS[image % 2][0]


def rectangle(image: int, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((16, width(image)), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def foreground_by_pixels(mask: np.ndarray, image: int) -> list[int]:
    """Tokens of which 32 pixels of 64 or more are under a mask, counted one by one."""
    left = WIDTHS[image % 2][1]
    found = []
    for y in range(2):
        for x in range(3):
            count = sum(
                bool(mask[row, column])
                for row in range(8 * y, 8 * y + 8)
                for column in range(left + 8 * x, left + 8 * x + 8)
            )
            if count >= 32:
                found.append(3 * y + x)
    return found


#: (image, level, category, crowd, mask)
REGIONS: list[tuple[int, str, int, int, np.ndarray]] = [
    (0, "object", 5, 0, rectangle(0, 0, 0, 8, 12)),  # a token and a half
    (0, "object", 7, 0, rectangle(0, 4, 2, 16, 6)),  # half of the lower one, with 5 of the upper
    (1, "object", 5, 0, rectangle(1, 0, 0, 16, 20)),  # partly cut off
    (1, "part", 2, 0, rectangle(1, 0, 0, 8, 20)),
    (1, "part", 3, 0, rectangle(1, 8, 0, 16, 20)),
    (2, "object", 7, 1, rectangle(2, 0, 0, 16, 24)),  # a crowd
    (2, "object", 5, 0, rectangle(2, 0, 16, 8, 24)),
    (3, "object", 7, 0, rectangle(3, 0, 0, 16, 8)),  # all cut off
    (4, "object", 5, 0, rectangle(4, 0, 0, 3, 3)),  # no token's half
    (6, "object", 7, 0, rectangle(6, 0, 0, 16, 24)),
    (6, "part", 2, 0, rectangle(6, 0, 0, 16, 9)),
    (6, "part", 3, 0, rectangle(6, 0, 9, 16, 24)),
]
CATEGORY_NAMES = {5: "dog", 7: "cat", 2: "head", 3: "tail"}


@dataclass(frozen=True)
class Dataset:
    """Image files, their index and the table of regions below a folder."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "images"

    @property
    def index(self) -> Path:
        return self.folder / "index.csv"

    @property
    def table(self) -> Path:
        return self.folder / "regions.csv"

    @cached_property
    def image_ids(self) -> list[str]:
        return [f"{image}.png" for image in range(N_IMAGES)]

    def write(self) -> Dataset:
        self.root.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for image, name in enumerate(self.image_ids):
            pixels = generator.integers(0, 256, (16, width(image), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.root / name)
        command = ["index", "made", "--layout", "flat", "--root", str(self.root)]
        assert main([*command, "--out", str(self.index)]) == 0
        write_table(self.table, RegionRow, self.rows())
        return self

    def rows(self) -> list[RegionRow]:
        return [
            RegionRow(
                f"{image}.png",
                level,
                category,
                CATEGORY_NAMES[category],
                crowd,
                *mask.shape,
                encode(mask),
            )
            for image, level, category, crowd, mask in REGIONS
        ]


@dataclass(frozen=True)
class Annotated(Attended):
    """A store of a dataset's attention."""

    fingerprint: str = ""
    image_ids: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        return replace(super().rows, image_id=list(self.image_ids))

    @property
    def request(self) -> dict[str, Any]:
        data = {"fingerprint": self.fingerprint, "n_images": self.n_images}
        return super().request | {"data": data} | self.more

    def arrays(self) -> dict[str, np.ndarray]:
        found = super().arrays()
        if "attention_centre" in self.taps:
            middle = self.tokens.grid[0] // 2 * self.tokens.grid[1] + self.tokens.grid[1] // 2
            centre = self.attention[..., self.tokens.n_prefix + middle, :]
            kept = self.kept.get("attention_centre", range(self.n_images))
            found["attention_centre"] = centre[list(kept)]
        return found


def attention_of(tokens: Tokens = TOKENS) -> np.ndarray:
    return random_attention(N_IMAGES, len(LAYERS), HEADS, tokens)


def write_store(
    path: Path,
    dataset: Dataset,
    attention: np.ndarray,
    tokens: Tokens = TOKENS,
    taps: tuple[str, ...] = ("attention_summary", "attention_centre"),
    **more: Any,
) -> Path:
    geometry = Geometry(
        LAYERS, 6, attention.shape[2], tokens.grid, tokens.has_cls, tokens.n_registers
    )
    content = Annotated(
        geometry=geometry,
        taps=taps,
        dtype="float32",
        n_images=N_IMAGES,
        block=4,
        attention=attention,
        tokens=tokens,
        labels=[-1] * N_IMAGES,
        fingerprint=Index.read(dataset.index).fingerprint,
        image_ids=tuple(dataset.image_ids),
        **more,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    content.write(path)
    return path
