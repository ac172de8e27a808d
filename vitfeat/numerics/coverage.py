"""From masks of pixels to tokens: how much of every token an annotated mask covers.

A view shows a rectangle of the original image, its ``box``
(:meth:`vitfeat.data.views.View.box`), and cuts it into a grid of equal tokens. Masks are compared
with tokens there, in the pixels of the original image: nothing is resized, and no rounding of a
crop comes between.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.errors import AnalysisError

Box = tuple[float, float, float, float]
Bool = NDArray[np.bool_]
Float = NDArray[np.float64]

MASKS = ("coverage", "paper")
"""Ways from masks to tokens: by area, or as the research code does."""

# Shares are sums of about as many terms as a token has rows and columns of pixels. Rounded here,
# a token within the mask has exactly 1, one half under it exactly 0.5, whatever the order of sums.
_DECIMALS = 12


def coverage(mask: Bool, box: Box, grid: tuple[int, int]) -> Float:
    r"""Find the share of every token's area that lies under a mask.

    With pixel (h, w) the square :math:`[w, w + 1) \times [h, h + 1)` and token (i, j) the rectangle
    :math:`X_j \times Y_i`, :math:`X_j = [l + j (r - l) / X, l + (j + 1) (r - l) / X)` and
    :math:`Y_i` likewise, the integral of the mask over the token over the token's area:

    .. math:: c_{ij} = \sum_{hw} a_{ih} m_{hw} b_{jw}, \quad
        a_{ih} = \frac{|Y_i \cap [h, h + 1)|}{|Y_i|}, \quad
        b_{jw} = \frac{|X_j \cap [w, w + 1)|}{|X_j|}

    Returns float64, (Y, X), from 0 to 1, to 12 decimals: exactly 1 for a token within the mask.

    Parameters
    ----------
    mask
        bool, (height, width) of the original image.
    box
        Left, top, right, bottom of the grid in pixels; beyond the image nothing is under the mask.
    grid
        Rows Y and columns X of tokens.
    """
    _check(mask, box, grid)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(grid)
    # Most regions are small: only what they span is multiplied.
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    down = _shares(box[1], box[3], grid[0], top, bottom)
    across = _shares(box[0], box[2], grid[1], left, right)
    under: Float = down @ mask[top:bottom, left:right] @ across.T
    return under.round(_DECIMALS)


def _shares(low: float, high: float, n: int, start: int, stop: int) -> Float:
    """Share of each of `n` equal parts of [low, high) in every pixel of [start, stop)."""
    # Multiplied before it is divided: edges that are whole numbers stay whole.
    edges = low + np.arange(n + 1) * (high - low) / n
    pixels = np.arange(start, stop + 1)
    ends = np.minimum(edges[1:, None], pixels[None, 1:])
    starts = np.maximum(edges[:-1, None], pixels[None, :-1])
    shares: Float = np.maximum(ends - starts, 0.0) * (n / (high - low))
    return shares


def _paper_values(mask: Bool, box: Box, grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a mask of 0 and 255 as the research code does, within the view's box.

    Pillow's antialiased bicubic filter in 8 bits reaches two tokens far: tokens that the mask
    barely touches, and some beyond it, have a value above 0. Here the mask is cut to the view's
    box; the research code's own crop of the middle square differs from it by up to a pixel.
    """
    _check(mask, box, grid)
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = math.ceil(box[2]), math.ceil(box[3])
    # Cropped first: the filter would reach beyond the box, and the research code crops first. A
    # crop beyond the image is filled with zeros.
    shown = Image.fromarray(mask.astype(np.uint8) * 255).crop((left, top, right, bottom))
    within = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return np.asarray(shown.resize((grid[1], grid[0]), Image.Resampling.BICUBIC, box=within))


def token_weights(mask: Bool, box: Box, grid: tuple[int, int], masks: str) -> Float:
    """Weigh tokens for the mean of a region's features, float64 (Y, X) from 0 to 1.

    By ``coverage`` it is the share of the token under the mask, by ``paper`` the value of the mask
    when resized to the grid (:func:`_paper_values`); all 0 where nothing of the region is shown.
    """
    if masks not in MASKS:
        raise AnalysisError(f"masks {masks!r}: must be one of {', '.join(MASKS)}")
    if masks == "paper":
        return _paper_values(mask, box, grid) / 255
    return coverage(mask, box, grid)


def foreground(mask: Bool, box: Box, grid: tuple[int, int], masks: str) -> Bool:
    """Say which tokens are foreground, bool (Y, X), by their weights (:func:`token_weights`).

    By ``coverage`` those of which at least half lies under the mask, by ``paper`` all above 0. Of
    several regions the research code unites the foregrounds; it does not resize their union.
    """
    weights = token_weights(mask, box, grid, masks)
    return weights > 0 if masks == "paper" else weights >= 0.5


def _check(mask: NDArray[Any], box: Box, grid: tuple[int, int]) -> None:
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise AnalysisError(
            f"a mask must be boolean of height x width, found {mask.dtype} of shape {mask.shape}"
        )
    left, top, right, bottom = box
    # Not "right <= left": comparisons with NaN are false.
    if not (np.isfinite(box).all() and right > left and bottom > top):
        raise AnalysisError(f"box {box}: must span an area, as left, top, right, bottom")
    if min(grid) < 1:
        raise AnalysisError(f"grid {grid}: must have at least one row and column")
