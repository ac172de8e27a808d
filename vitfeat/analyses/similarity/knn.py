"""Mutual nearest-neighbour alignment of two layers: whether images have the same neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.similarity.half_samples import Halves
from vitfeat.analyses.similarity.layers import Floats, Layer
from vitfeat.errors import AnalysisError

Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Nearest:
    """All other images from the nearest to the furthest, int32 (n, n - 1), and how many count."""

    order: Ints
    neighbours: int


def prepare_knn(layer: Layer, *, neighbours: int) -> Nearest | None:
    """Prepare a layer for :func:`mutual_knn`; None where features are constant.

    Raises
    ------
    AnalysisError
        Fewer other images than neighbours.
    """
    if layer.n_images <= neighbours:
        raise AnalysisError(
            f"mutual_knn compares {neighbours} neighbours of every image, and there are "
            f"{layer.n_images - 1}: take more images or fewer neighbours"
        )
    if not layer.varies:
        return None
    raw = layer.raw
    norms = np.sqrt(np.clip(raw.diagonal(), 0, None))
    cosine = raw / np.where(norms > 0, norms, 1)
    cosine /= np.where(norms > 0, norms, 1)[:, None]
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :-1]
    return Nearest(order.astype(np.int32), neighbours)


def mutual_knn(a: Nearest, b: Nearest) -> float:
    r"""Mutual nearest-neighbour alignment.

    .. math:: \frac{1}{n} \sum_i \frac{1}{k} \lvert N_a(i) \cap N_b(i) \rvert

    with N(i) the k other images whose features have the greatest cosine with those of image i
    (Huh et al. 2024: features are L2-normalised and not centred). Of images equally near the
    earlier one counts as nearer. From 0 to 1; k / (n - 1) for unrelated features.
    """
    left, right = (_table(side.order[:, : side.neighbours]) for side in (a, b))
    return np.count_nonzero(left & right) / np.count_nonzero(left)


def _table(neighbours: Ints) -> NDArray[np.bool_]:
    """Table of images by images, true where one is a neighbour of another, (n, n)."""
    marks = np.zeros((len(neighbours), len(neighbours)), dtype=np.bool_)
    np.put_along_axis(marks, neighbours, True, axis=1)
    return marks


def resample_knn(a: Sequence[Nearest], b: Sequence[Nearest], halves: Halves) -> Floats:
    """:func:`mutual_knn` on halves of the images, neighbours anew within each half.

    Of fewer images so many fewer neighbours count that they are the same share, rounded, one at
    least: with the same number the neighbourhoods would be twice as wide.

    Returns (resample, layer_a, layer_b).
    """
    n, m = halves.shape[1], int(halves[0].sum())
    count = max(1, round(a[0].neighbours * (m - 1) / (n - 1)))
    shared = np.empty((len(halves), len(a), len(b)))
    for index, half in enumerate(halves):
        left = [_within(layer.order, half, count) for layer in a]
        right = left if b is a else [_within(layer.order, half, count) for layer in b]
        for i, j in np.ndindex(len(a), len(b)):
            shared[index, i, j] = np.count_nonzero(left[i] & right[j]) / (m * count)
    return shared


def _within(order: Ints, half: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Table of the images of a half, true at their nearest so many within the half."""
    rows = order[half]
    # Half of an image's neighbours are in the half: hardly ever are more than these needed.
    for width in (4 * count + 24, rows.shape[1]):
        near = rows[:, :width]
        inside = half[near]
        if inside.sum(axis=1).min() >= count:
            break
    inside &= np.cumsum(inside, axis=1, dtype=np.int32) <= count
    marks = np.zeros((len(rows), len(half)), dtype=np.bool_)
    marks[np.nonzero(inside)[0], near[inside]] = True
    return marks
