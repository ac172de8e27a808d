r"""Keypoints of one image found in another: which pairs, which points, and the share that is right.

A keypoint is found when its place is within :math:`\alpha` times the larger side of the target's
box (PCK, the percentage of correct keypoints, by box; here as a share from 0 to 1).

References
----------
J. Min, J. Lee, J. Ponce, M. Cho: SPair-71k. arXiv:1908.10543, 2019. Y. Yang, D. Ramanan:
Articulated human detection with flexible mixtures of parts. TPAMI 35, 2013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import floor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitfeat.data.annotations import PointRow
from vitfeat.numerics.upsampled import Box, Floats, pixels_within

# A distance is a root, and a threshold a product, so either may be rounded away from the other.
_ROUNDING = 1e-9


class Score(NamedTuple):
    """A value of the table; variant, score, group and n as in a ScoreRow."""

    variant: str
    score: str
    group: str
    n: int
    value: float


@dataclass(frozen=True)
class Points:
    """Keypoints as arrays, one entry a point, in pixels from 0."""

    pair: NDArray[np.int64]  # int64: number of the pair
    category: NDArray[np.str_]  # of the pair
    # source, target: float64 (point, 2): x and y in each image, as annotated.
    source: Floats
    target: Floats
    side: Floats  # float64: the larger side of the target's box

    @staticmethod
    def of(rows: Sequence[PointRow]) -> Points:
        """Take the columns of rows."""
        boxes = np.array([r[-4:] for r in rows], dtype=np.float64).reshape(-1, 4)
        return Points(
            np.array([r.pair for r in rows], dtype=np.int64),
            np.array([r.category for r in rows], dtype=np.str_),
            np.array([(r.source_x, r.source_y) for r in rows], dtype=np.float64).reshape(-1, 2),
            np.array([(r.target_x, r.target_y) for r in rows], dtype=np.float64).reshape(-1, 2),
            (boxes[:, 2:] - boxes[:, :2]).max(axis=1),
        )


def drawn_pairs(rows: Sequence[PointRow], n_pairs: int, seed: int) -> list[PointRow]:
    """Draw so many pairs of each category, without replacement; all of one that has fewer.

    A category's pairs are put in the order of the SHA-256 of the seed, the category and the two
    images' names, and the first are taken. So the draw depends on no order of files and on no
    generator's version, and a smaller one is part of a larger. Rows keep their order.
    """
    digests: dict[int, tuple[str, str]] = {}
    for row in rows:
        if row.pair not in digests:
            text = "\0".join((str(seed), row.category, row.source, row.target))
            digests[row.pair] = row.category, hashlib.sha256(text.encode()).hexdigest()
    chosen: set[int] = set()
    in_order = sorted((category, digest, pair) for pair, (category, digest) in digests.items())
    for _, members in groupby(in_order, key=lambda entry: entry[0]):
        chosen.update(pair for _, _, pair in list(members)[:n_pairs])
    return [row for row in rows if row.pair in chosen]


def held_within(place: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    """Return the place (x, y) of an image of so many pixels (width, height) nearest to one.

    Annotations are beyond the image at times.
    """
    x, y = (min(max(at, 0.0), n - 1.0) for at, n in zip(place, size, strict=True))
    return x, y


def is_shown(place: tuple[float, float], size: tuple[int, int], box: Box) -> bool:
    """Return whether a map whose box is in pixels shows a place, held within the image."""
    x, y = held_within(place, size)
    columns = pixels_within(size[0], box[0], box[2])
    rows = pixels_within(size[1], box[1], box[3])
    return floor(x + 0.5) in columns and floor(y + 0.5) in rows


def hits(found: ArrayLike, points: Points, alpha: float) -> NDArray[np.bool_]:
    """Return whether points are found: at most `alpha` times the box's larger side away.

    ``found`` is (point, 2), x and y in the target, in pixels from 0.
    """
    distances = np.linalg.norm(np.asarray(found, dtype=np.float64) - points.target, axis=1)
    return np.asarray(distances <= alpha * points.side * (1 + _ROUNDING))


def chance(
    points: Points, boxes: Sequence[Box], sizes: Sequence[tuple[int, int]], alpha: float
) -> Floats:
    """Return how likely a pixel drawn evenly from all that are candidates is near enough.

    ``boxes`` and ``sizes`` are what the map of each point's target shows, and its width and height.
    """
    shares = np.empty(len(points.side))
    everything = zip(points.target, points.side, boxes, sizes, strict=True)
    for number, ((x, y), side, (left, top, right, bottom), (width, height)) in enumerate(
        everything
    ):
        columns, rows = pixels_within(width, left, right), pixels_within(height, top, bottom)
        radius = alpha * side * (1 + _ROUNDING)
        below = np.arange(rows.start, rows.stop) - y
        half = np.sqrt(np.maximum(radius**2 - below**2, 0))
        first = np.maximum(np.ceil(x - half), columns.start)
        last = np.minimum(np.floor(x + half), columns.stop - 1)
        near = np.where(np.abs(below) <= radius, np.maximum(last - first + 1, 0), 0).sum()
        shares[number] = near / (len(rows) * len(columns))
    return shares


def scores(
    points: Points, found: Floats, tied: NDArray[np.bool_], alphas: Sequence[float]
) -> Iterator[Score]:
    """Yield PCK for each alpha, of all pairs together and of each category, and the share of ties.

    ``found`` are places in the targets, (point, 2); ``tied`` says where other places were as near.
    """
    for alpha in alphas:
        yield from _averages("pck", f"{alpha:g}", hits(found, points, alpha), points)
    yield Score("", "ties", "", len(tied), float(tied.mean()))


def chance_scores(
    points: Points,
    boxes: Sequence[Box],
    sizes: Sequence[tuple[int, int]],
    alphas: Sequence[float],
) -> Iterator[Score]:
    """Yield what :func:`scores` expects of places drawn at random; see :func:`chance`."""
    for alpha in alphas:
        yield from _averages("chance", f"{alpha:g}", chance(points, boxes, sizes, alpha), points)


def _averages(
    name: str, variant: str, values: NDArray[np.bool_] | Floats, points: Points
) -> Iterator[Score]:
    """Average over points, over pairs and over categories.

    A pair's value is the mean over its points; all pairs weigh alike, and all categories.
    """
    categories = np.unique(points.category)
    by_category = []
    for group in ("", *categories.tolist()):
        of_group = (points.category == group) | (group == "")
        members = values[of_group].astype(np.float64)
        _, pair, counts = np.unique(points.pair[of_group], return_inverse=True, return_counts=True)
        of_pairs = np.bincount(pair, members) / counts
        by_point, by_image = float(members.mean()), float(of_pairs.mean())
        yield Score(variant, f"{name}_point", group, len(members), by_point)
        yield Score(variant, f"{name}_image", group, len(of_pairs), by_image)
        if group:
            by_category.append((by_point, by_image))
    means = np.mean(by_category, axis=0).tolist()
    for kind, mean in zip(("point", "image"), means, strict=True):
        yield Score(variant, f"{name}_{kind}_category_mean", "", len(categories), mean)
