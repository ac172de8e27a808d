"""Masks of annotated regions: COCO's three forms, checked, read, joined and decoded.

pycocotools draws and joins masks in C and trusts its input: wrong run lengths or coordinates make
it read and write beyond its arrays. So everything is checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from vitfeat.data.annotations import RegionRow
from vitfeat.errors import DataError

Bool = NDArray[np.bool_]

# pycocotools counts in 32 bits.
_MAX_PIXELS = 2**31 - 1

# Characters of one run length: 7 hold 32 bits.
_MAX_CHARACTERS = 7

# A polygon is drawn through every fifth of a pixel along its outline, in memory.
_MAX_OUTLINE = 2_000_000


def encode(mask: Bool) -> str:
    """Compress a mask, bool (height, width), to COCO's compressed run-length encoding.

    Lengths of the runs of 0 and 1 by turns, column by column, from the third on as the difference
    from the one before the last, in groups of 5 bits from character ``0`` on.
    """
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return str(encoded["counts"], "ascii")


def decode(counts: str, height: int, width: int) -> Bool:
    """Read a compressed run-length encoding: bool, (height, width)."""
    runs = _runs(counts)
    _check_runs(runs, height, width)
    # pycocotools would read a second time what is known by now.
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def mask_of(row: RegionRow) -> Bool:
    """Decode the mask of an annotated region: bool, (height, width)."""
    try:
        return decode(row.counts, row.height, row.width)
    except DataError as error:
        raise DataError(
            f"table of regions: a mask of {row.image_id} cannot be read ({error}); make the table "
            "anew (vitfeat annotations)"
        ) from None


def compress(segmentation: Any, height: int, width: int) -> str:
    """Bring a segmentation of COCO's JSON into the compressed form, as pycocotools does.

    It is a list of polygons ``[x1, y1, x2, y2, ...]``, whose union is the mask; or ``{"size":
    [height, width], "counts": ...}`` with run lengths as a list or compressed. Polygons of fewer
    than three points, of which PartImageNet has some, cover nothing.
    """
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise DataError("the segmentation is neither a list of polygons nor run lengths")
    if segmentation.get("size") != [height, width]:
        raise DataError(
            f"its run lengths have the size {segmentation.get('size')!r:.40}, its image is "
            f"[{height}, {width}] (height, width)"
        )
    counts = segmentation["counts"]
    if isinstance(counts, str):
        _check_runs(_runs(counts), height, width)
        return counts
    lengths = _flat(counts)
    if lengths is None or lengths.dtype.kind not in "iu":
        raise DataError("its run lengths are no list of whole numbers")
    _check_runs(lengths, height, width)
    found = rle.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width)
    return str(found["counts"], "ascii")


def area(counts: str, height: int, width: int) -> int:
    """Return how many pixels a mask has, as :func:`compress` gives it."""
    return int(rle.area({"size": [height, width], "counts": counts.encode("ascii")}))


def reaches_out(segmentation: Any, height: int, width: int) -> bool:
    """Tell whether a polygon, as :func:`compress` takes it, is more than a pixel out of the image.

    Run lengths never are.
    """
    if not isinstance(segmentation, list):
        return False
    size = np.array([width, height])
    corners = (_points(polygon) for polygon in segmentation)
    return any(bool(((points < -1) | (points > size + 1)).any()) for points in corners)


def unite(masks: Sequence[str], height: int, width: int) -> str:
    """Join masks of one image, as :func:`compress` gives them: what any of them covers."""
    if not masks:
        return encode(np.zeros((height, width), dtype=np.bool_))
    encoded = [{"size": [height, width], "counts": counts.encode("ascii")} for counts in masks]
    return str(rle.merge(encoded, intersect=False)["counts"], "ascii")


def _from_polygons(polygons: list[Any], height: int, width: int) -> str:
    parts = []
    for polygon in polygons:
        points = _points(polygon)
        size = np.array([width, height])
        if len(points) and ((points < -size) | (points > 2 * size)).any():
            raise DataError(f"a polygon reaches far out of its image of {width} x {height} pixels")
        steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1, initial=0.0)
        if steps.sum() > _MAX_OUTLINE:
            raise DataError(f"the outline of a polygon is {steps.sum():.0f} pixels long")
        if len(points) >= 3:
            parts.append(points.ravel().tolist())
    if not parts:
        return unite([], height, width)
    drawn = rle.frPyObjects(parts, height, width)
    return unite([str(part["counts"], "ascii") for part in drawn], height, width)


def _points(polygon: Any) -> NDArray[np.float64]:
    """Read the corners of a polygon: float64, (corner, x and y)."""
    flat = _flat(polygon)
    if flat is None or len(flat) % 2:
        raise DataError("a polygon is no list of numbers, x and y by turns")
    if not np.isfinite(flat).all():
        raise DataError("a polygon has coordinates that are no numbers")
    return flat.reshape(-1, 2).astype(np.float64)


def _flat(numbers: Any) -> NDArray[Any] | None:
    """Read a list of numbers: one-dimensional, or None if it is none."""
    try:
        flat = np.array(numbers)
    except ValueError:  # lists of several lengths
        return None
    return flat if flat.ndim == 1 and flat.dtype.kind in "iuf" else None


def _runs(counts: str) -> NDArray[np.int64]:
    """Read the run lengths of the compressed form: int64, (run,)."""
    try:
        groups = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        groups = np.array([-1], dtype=np.int64)
    # Bits 0 to 4 of each character are data, bit 5 says that more follow.
    ends = np.flatnonzero((groups & 32) == 0)
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise DataError("the run lengths are no compressed encoding of COCO's")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise DataError("a run length is longer than any image")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((groups & 31) << (5 * place), starts)
    # The highest bit of the last group is the sign.
    runs -= np.where(groups[ends] & 16, np.left_shift(1, 5 * lengths), 0)
    # Differences from the third run on; the first has none that builds on it.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _check_runs(runs: NDArray[Any], height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > _MAX_PIXELS:
        raise DataError(f"there is no mask of {width} x {height} pixels")
    if (runs < 0).any() or (runs > _MAX_PIXELS).any():
        raise DataError("a run length is negative, or longer than any image")
    if (total := int(runs.sum())) != height * width:
        raise DataError(
            f"the run lengths cover {total:,} pixels, not the {height * width:,} of an image of "
            f"{width} x {height}"
        )
