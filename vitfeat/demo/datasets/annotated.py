"""Regions of the embedded datasets, as COCO's JSON has them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vitfeat.data.regions import encode
from vitfeat.demo import digits
from vitfeat.files import replacing

Bool = NDArray[np.bool_]
Grey = NDArray[np.uint8]
Form = Literal["polygons", "runs", "compressed"]
Cell = tuple[int, int, int, int]
"""Top, left, bottom, right of a rectangle, in pixels."""

_INK = 96
"""From this grey value on, a pixel is ink."""


def _enlarged(position: int, side: int) -> Grey:
    """Enlarge one of scikit-learn's digits: uint8, (side, side), 0 (paper) to 255 (ink)."""
    image = Image.fromarray(_originals()[position])
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC))


@functools.cache
def _originals() -> Grey:
    originals: Grey = digits._source()[0]
    return originals


def paper(height: int, width: int, rng: np.random.Generator) -> Grey:
    """Make dark paper with a faint, smooth texture: uint8, (height, width)."""
    texture = ndimage.gaussian_filter(rng.random((height, width)), 1.5)
    low, high = texture.min(), texture.max()
    return np.asarray(np.round((texture - low) / (high - low) * 24), dtype=np.uint8)


def draw(canvas: Grey, position: int, cell: Cell, rng: np.random.Generator) -> Bool:
    """Draw a digit somewhere in a cell, nearly as large as it.

    Returns its ink: bool, (height, width).
    """
    top, left, bottom, right = cell
    side = int(min(bottom - top, right - left) * rng.uniform(0.85, 1.0))
    top += int(rng.integers(bottom - top - side + 1))
    left += int(rng.integers(right - left - side + 1))
    drawn = _enlarged(position, side)
    here = np.s_[top : top + side, left : left + side]
    canvas[here] = np.maximum(canvas[here], drawn)
    mask = np.zeros(canvas.shape, dtype=np.bool_)
    mask[here] = drawn >= _INK
    return mask


def save(grey: Grey, path: Path, quality: int = 95, subsampling: int = -1) -> None:
    """Write a grey picture as a JPEG in RGB; -1 leaves the subsampling of colours to Pillow."""
    image = Image.fromarray(grey).convert("RGB")
    with replacing(path) as partial:
        image.save(partial, format="JPEG", quality=quality, subsampling=subsampling)


def dump(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in one line, as the official files are."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content), "utf-8")


def annotation(
    id_: int, image_id: int, category_id: int, mask: Bool, form: Form, *, crowd: int = 0
) -> dict[str, Any]:
    """Describe a region of an image: its mask, (height, width) and not empty, written in a form."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    segmentation: Any
    if form == "polygons":
        segmentation = polygons(mask)
    else:
        counts = runs(mask) if form == "runs" else encode(mask)
        segmentation = {"counts": counts, "size": list(mask.shape)}
    left, top = int(columns[0]), int(rows[0])
    return {
        "segmentation": segmentation,
        "area": int(mask.sum()),
        "iscrowd": crowd,
        "image_id": image_id,
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "category_id": category_id,
        "id": id_,
    }


def runs(mask: Bool) -> list[int]:
    """Count the runs of 0 and 1 by turns, column by column; the first may be 0 long."""
    flat = np.concatenate(([False], mask.ravel(order="F")))
    starts = np.flatnonzero(np.diff(flat))
    lengths: list[int] = np.diff(np.concatenate(([0], starts, [mask.size]))).tolist()
    return lengths


def polygons(mask: Bool) -> list[list[float]]:
    """Trace the outlines of a mask along the edges of its pixels.

    A piece is ``[x1, y1, x2, y2, ...]``. COCO's polygons have no holes: a piece of ink around one
    is cut into two, side by side.
    """
    pieces, n = ndimage.label(mask)
    outlines = []
    for number in range(1, n + 1):
        piece = pieces == number
        holes = ndimage.binary_fill_holes(piece, np.ones((3, 3))) & ~piece
        if holes.any():
            across = np.flatnonzero(holes.any(axis=0))
            cut = int(across[len(across) // 2])
            sides = np.arange(mask.shape[1]) < cut
            outlines += polygons(piece & sides) + polygons(piece & ~sides)
        else:
            outlines.append(_outline(piece))
    return outlines


# Of a corner that is walked through in a direction (x, y): offsets of the pixels ahead, right and
# left of the walk.
_AHEAD = {
    (1, 0): ((0, 0), (0, -1)),
    (0, 1): ((-1, 0), (0, 0)),
    (-1, 0): ((-1, -1), (-1, 0)),
    (0, -1): ((0, -1), (-1, -1)),
}


def _outline(piece: Bool) -> list[float]:
    """Walk once around a piece without holes, the ink on the right."""
    padded = np.pad(piece, 1)
    rows, columns = np.nonzero(piece)
    # The upper left corner of the first pixel: the walk begins to the right.
    x, y = start = int(columns[0]), int(rows[0])
    dx, dy = 1, 0
    corners: list[float] = []
    while not corners or (x, y) != start:
        corners += [float(x), float(y)]
        while True:
            x, y = x + dx, y + dy
            right, left = (bool(padded[y + v + 1, x + u + 1]) for u, v in _AHEAD[dx, dy])
            # Right first: where ink meets at a corner only, the walk stays with its own.
            if not right:
                dx, dy = -dy, dx
                break
            if left:
                dx, dy = dy, -dx
                break
    return corners
