"""Between masks of pixels and labels of tokens: into a propagation, and out of it.

Labels are soft: channel 0 of a token is its share of background, channel k that of object k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.numerics.coverage import Box, coverage
from vitfeat.numerics.upsampled import token_places

Mask = NDArray[np.uint8]
Labels = NDArray[np.float64]

NORMALISATIONS = ("none", "paper")
"""What may become of channels before the largest wins."""

# Labels come of cosines in float32: differences below are rounding.
_CONSTANT = 1e-6


@dataclass(frozen=True, eq=False)
class FirstLabels:
    """Labels of a sequence's first frame."""

    labels: Labels  # float64 (Y, X, object + 1), summing to 1 over the last axis
    # Numbers of the objects whose shares were raised, since none of their pixels would be left.
    lifted: tuple[int, ...]
    lost: tuple[int, ...]  # numbers of the objects of the mask of which no pixel is left even so


def tokens_inside(box: Box, size: tuple[int, int], grid: tuple[int, int]) -> tuple[slice, slice]:
    """Find the rows and columns of a grid that show some of the image, and not padding alone."""

    def along(low: float, high: float, n: int, pixels: int) -> slice:
        side = (high - low) / n
        # Edges that fall together may differ by rounding.
        first = max(0, math.floor(-low / side + 1e-9))
        return slice(first, min(n, math.ceil((pixels - low) / side - 1e-9)))

    left, top, right, bottom = box
    return along(top, bottom, grid[0], size[0]), along(left, right, grid[1], size[1])


def box_of(box: Box, grid: tuple[int, int], tokens: tuple[slice, slice]) -> Box:
    """Return the rectangle of some rows and columns of a grid that spans a box."""
    left, top, right, bottom = box
    rows, columns = tokens
    down, across = bottom - top, right - left
    return (
        left + columns.start * across / grid[1],
        top + rows.start * down / grid[0],
        left + columns.stop * across / grid[1],
        top + rows.stop * down / grid[0],
    )


def first_labels(mask: Mask, n_objects: int, box: Box, grid: tuple[int, int]) -> FirstLabels:
    r"""Make the labels of the first frame from its mask.

    A token's label of object k is the share of its area under the object, that of background what
    is left; void and numbers above `n_objects` are background.

    An object that is in the mask, but would have no pixel in what :func:`to_mask` makes of these
    labels, is smaller than a token, or thinner. Its shares :math:`s_k` are lifted until the largest
    is 1, :math:`s_k / \max s_k`, and the other labels of a token make room in proportion. Where
    lifted shares sum to more than 1, they are divided by their sum.
    """
    objects = range(1, n_objects + 1)
    labels = np.empty((*grid, n_objects + 1))
    for number in objects:
        labels[..., number] = coverage(mask == number, box, grid)
    labels[..., 0] = np.maximum(1 - labels[..., 1:].sum(axis=-1), 0)
    labels /= labels.sum(axis=-1, keepdims=True)
    there = [number for number in objects if (mask == number).any()]

    def missing(found: Labels) -> list[int]:
        left = set(np.unique(to_mask(found, box, mask.shape)).tolist())
        return [number for number in there if number not in left]

    weak = [number for number in missing(labels) if labels[..., number].any()]
    if weak:
        labels = _lifted(labels, weak)
    return FirstLabels(labels, tuple(weak), tuple(missing(labels)))


def _lifted(labels: Labels, weak: list[int]) -> Labels:
    raised = labels[..., weak] / labels[..., weak].max(axis=(0, 1))
    raised /= np.maximum(raised.sum(axis=-1, keepdims=True), 1)
    others = np.delete(labels, weak, axis=-1)
    present = others.sum(axis=-1, keepdims=True)
    room = 1 - raised.sum(axis=-1, keepdims=True)
    scale = np.divide(room, present, out=np.zeros_like(room), where=present > 0)
    lifted: Labels = labels * scale
    lifted[..., weak] = raised
    return lifted


def to_mask(labels: NDArray[Any], box: Box, size: tuple[int, ...], normalise: str = "none") -> Mask:
    r"""Turn labels of tokens into a mask of pixels: interpolate every channel, take the largest.

    Labels are (Y, X, object + 1), finite; the mask is uint8 of the size (height, width).

    The centre of pixel (h, w) lies at
    :math:`u = (w + \tfrac12 - l) \frac{X}{r - l} - \tfrac12` columns of tokens from the centre of
    the first one, and rows alike; its value is the bilinear mean of the four tokens around it.
    Beyond the centres of the outermost tokens, theirs are the values. (With the whole frame as box,
    this is what PyTorch calls ``align_corners=False``.) At exact ties background wins, then the
    object of the lower number.

    An object whose label is the same in all tokens tells nothing of where it is, and wins no pixel;
    unless it is all there is, with 1 in every token.

    `box` is left, top, right, bottom of the grid, in pixels of the frame. `normalise` is ``none``,
    or ``paper``: once interpolated, every channel is scaled to reach from 0 to 1 over the frame, so
    that weak objects win pixels as well; a constant one becomes 0.
    """
    if normalise not in NORMALISATIONS:
        raise AnalysisError(f"normalise {normalise!r}: must be one of {', '.join(NORMALISATIONS)}")
    rows, columns, channels = labels.shape
    if channels > 256:
        raise AnalysisError(f"{channels - 1} objects in a mask; it has numbers for 255")
    down = _interpolation(box[1], box[3], rows, size[0])
    across = _interpolation(box[0], box[2], columns, size[1])
    mask = np.zeros((size[0], size[1]), dtype=np.uint8)
    best: NDArray[np.float64] | None = None
    for number in range(channels):
        channel = np.ascontiguousarray(labels[..., number], dtype=np.float64)
        constant = np.ptp(channel) <= _CONSTANT
        if number and constant and channel.min() < 1 - _CONSTANT:
            continue
        values = down @ channel @ across.T
        if normalise == "paper":
            low, high = values.min(), values.max()
            values = np.zeros_like(values) if constant else (values - low) / (high - low)
        if best is None:
            best = values
            continue
        larger = values > best
        mask[larger] = number
        np.copyto(best, values, where=larger)
    return mask


@lru_cache(maxsize=64)
def _interpolation(low: float, high: float, n: int, pixels: int) -> NDArray[np.float64]:
    """Return (pixel, token): the weight of every token in every pixel along one axis."""
    at = token_places(np.arange(pixels), low, high, n)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(at[:, np.newaxis] - np.arange(n)))
    # All callers have the same array.
    weights.flags.writeable = False
    return weights
