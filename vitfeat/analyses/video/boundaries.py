"""Outlines of masks, and F: how well two outlines agree, as DAVIS defines it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Binary = NDArray[np.bool_]
Places = tuple[NDArray[np.int64], NDArray[np.int64]]

TOLERANCE = 0.008
"""How far outlines may be apart, as a share of the frame's diagonal."""


def tolerance(shape: tuple[int, int]) -> int:
    r"""Return how many pixels outlines may differ, :math:`\lceil 0.008 \sqrt{H^2 + W^2} \rceil`."""
    height, width = shape
    return math.ceil(TOLERANCE * math.sqrt(height * height + width * width))


def outline(mask: Binary) -> Binary:
    """Mark the pixels that differ from their neighbour on the right, below, or below that.

    What is beyond the last row or column is not compared; the last pixel is never marked. So the
    outline is half a pixel up and left of where the mask ends, and a mask that reaches the frame's
    edge has none there.

    References
    ----------
    The boundary map of D. Martin's segmentation benchmark (2003), which DAVIS uses.
    """
    marked = np.zeros(mask.shape, dtype=bool)
    right = mask[:, :-1] ^ mask[:, 1:]
    below = mask[:-1] ^ mask[1:]
    marked[:, :-1] = right
    marked[:-1] |= below
    marked[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return marked


def n_near(places: Places, marked: Binary, radius: int) -> int:
    """Count the places, rows and columns, that have a marked pixel within a disk around them.

    Pixels at a distance of the radius, between centres, are within.
    """
    # How many pixels are marked left of a column of a row says whether any is between two columns:
    # a disk is a few such spans, and only the places are looked at.
    before = np.zeros((marked.shape[0] + 2 * radius, marked.shape[1] + 2 * radius + 1), np.int32)
    inner = before[radius : radius + marked.shape[0], radius + 1 :]
    inner[:, : marked.shape[1]] = marked
    np.cumsum(inner, axis=1, out=inner)
    flat, pitch = before.reshape(-1), before.shape[1]
    start = places[0] * pitch + places[1] + radius
    near = np.zeros(len(start), dtype=bool)
    for down in range(2 * radius + 1):
        half = math.isqrt(radius * radius - (down - radius) ** 2)
        row = start + down * pitch
        near |= flat[row + half + 1] != flat[row - half]
    return int(near.sum())


def boundary_measure(truth: Binary, predicted: Binary) -> float:
    r"""F: harmonic mean of precision and recall of the outline.

    With :math:`B` and :math:`\hat B` the outlines of the true and of the predicted mask, and
    :math:`D_r` a dilation by the disk of radius :math:`r = \lceil 0.008 \sqrt{H^2 + W^2} \rceil`,

    .. math:: P = \frac{|\hat B \cap D_r(B)|}{|\hat B|}, \quad
        R = \frac{|B \cap D_r(\hat B)|}{|B|}, \quad F = \frac{2 P R}{P + R}.

    It is 1 where neither mask has an outline, 0 where one has none or P and R are both 0.

    References
    ----------
    D. Martin, C. Fowlkes, J. Malik: Learning to detect natural image boundaries using local
    brightness, color, and texture cues. PAMI 26, 2004; F. Perazzi et al.: A benchmark dataset and
    evaluation methodology for video object segmentation. CVPR 2016.
    """
    radius = tolerance((truth.shape[0], truth.shape[1]))
    # There is no outline beyond this: it is up to a pixel up and left of where a mask begins.
    part = _around(truth | predicted)
    true, guess = outline(truth[part]), outline(predicted[part])
    true_places, places = true.nonzero(), guess.nonzero()
    n_true, n_guess = len(true_places[0]), len(places[0])
    if not n_true or not n_guess:
        return float(n_true == n_guess)
    precision = n_near((places[0], places[1]), true, radius) / n_guess
    recall = n_near((true_places[0], true_places[1]), guess, radius) / n_true
    # In the order of the official arithmetic, so that the last digit is the same.
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _around(mask: Binary) -> tuple[slice, slice]:
    """Return the box of a mask and a pixel more on every side where the frame has one."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return (
        slice(max(0, int(rows[0]) - 1), int(rows[-1]) + 2),
        slice(max(0, int(columns[0]) - 1), int(columns[-1]) + 2),
    )
