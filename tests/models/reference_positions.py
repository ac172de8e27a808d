"""Position embeddings for other grids, from the definitions, in NumPy and float64.

Each function follows the code that a model was published with: DINO and DINOv2 (bicubic, its scale
from a grid a tenth of a cell larger), MAE (bicubic), timm, open_clip and DINOv2 with registers
(bicubic over a filter that widens when it shrinks), Google's ViT (bilinear, corners on corners) and
BEiT (a table of offsets, spline over distances that grow geometrically). MoCo-v3 computes its
positions anew: ``sincos_positions`` of ``tests/models/published.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline

Grid = tuple[int, int]
Way = Callable[[np.ndarray, Grid], np.ndarray]


def cubic(distance: np.ndarray, sharpness: float) -> np.ndarray:
    """Give Keys' cubic convolution kernel (1981).

    Parameters
    ----------
    distance
        From the sample, in samples.
    sharpness
        The slope at distance 1, negative: -0.75 in most libraries, -0.5 in those that follow
        Pillow.
    """
    x, a = np.abs(distance), sharpness
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def bicubic_matrix(old: int, new: int, scale: float | None = None) -> np.ndarray:
    """Give the weights (new, old) of cubic interpolation along one side.

    Samples lie in the middle of cells; beyond the border its sample is repeated.

    Parameters
    ----------
    old, new
        Numbers of samples.
    scale
        By how much a cell grows; ``new / old`` if not given.
    """
    scale = new / old if scale is None else scale
    centre = (np.arange(new) + 0.5) / scale - 0.5
    weights = np.zeros((new, old))
    for step in range(-1, 3):
        sample = np.floor(centre).astype(int) + step
        np.add.at(
            weights,
            (np.arange(new), sample.clip(0, old - 1)),
            cubic(centre - sample, -0.75),
        )
    return weights


def antialiased_matrix(old: int, new: int) -> np.ndarray:
    """Give the weights (new, old) of cubic resampling along one side as Pillow does it.

    A side that shrinks widens the kernel by as much; beyond the border there is nothing, and the
    weights that are left sum to one.
    """
    step = old / new
    centre = (np.arange(new)[:, None] + 0.5) * step - 0.5
    weights = cubic((np.arange(old) - centre) / max(step, 1.0), -0.5)
    return weights / weights.sum(1, keepdims=True)


def bilinear_matrix(old: int, new: int) -> np.ndarray:
    """Give the weights (new, old) of linear interpolation with the outer samples on each other."""
    place = np.arange(new) * (old - 1) / (new - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(old)), 0)


def _along_both(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.einsum("yr,xc,rcd->yxd", rows, columns, values)


def like_dino(values: np.ndarray, new: Grid) -> np.ndarray:
    """Resize a grid (row, column, channel) as DINO, and DINOv2 without registers, do."""
    rows, columns = (
        bicubic_matrix(o, n, scale=(n + 0.1) / o)
        for o, n in zip(values.shape[:2], new, strict=True)
    )
    return _along_both(values, rows, columns)


def like_mae(values: np.ndarray, new: Grid) -> np.ndarray:
    """Resize a grid (row, column, channel) as MAE, DeiT and BEiT's fine-tuning do."""
    sides = zip(values.shape[:2], new, strict=True)
    return _along_both(values, *(bicubic_matrix(o, n) for o, n in sides))


def like_timm(values: np.ndarray, new: Grid) -> np.ndarray:
    """Resize a grid (row, column, channel) as timm, open_clip and DINOv2 with registers do."""
    sides = zip(values.shape[:2], new, strict=True)
    return _along_both(values, *(antialiased_matrix(o, n) for o, n in sides))


def like_google(values: np.ndarray, new: Grid) -> np.ndarray:
    """Resize a grid (row, column, channel) as Google's ViT does."""
    sides = zip(values.shape[:2], new, strict=True)
    return _along_both(values, *(bilinear_matrix(o, n) for o, n in sides))


def with_prefix(positions: np.ndarray, old: Grid, new: Grid, way: Way, n: int = 1) -> np.ndarray:
    """Resize what follows the first `n` of the positions (token, channel) by one of the ways."""
    grid = way(positions[n:].reshape(*old, -1).astype(float), new)
    return np.concatenate([positions[:n], grid.reshape(-1, positions.shape[1])])


def beit_places(old: int, new: int) -> np.ndarray:
    """Give the places of a side's old offsets, in units of the new ones.

    Steps grow by a factor, such that the old offsets reach as far as the new; it is sought by
    bisection between 1.01 and 1.5, to a millionth.

    Parameters
    ----------
    old, new
        Numbers of offsets of a side: 2 grid - 1.
    """
    powers = np.arange(old // 2)
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        factor = (low + high) / 2
        if (factor**powers).sum() > new // 2:
            high = factor
        else:
            low = factor
    reach = np.cumsum(factor**powers)
    return np.concatenate([-reach[::-1], [0.0], reach])


def like_beit(table: np.ndarray, old: Grid, new: Grid) -> np.ndarray:
    """Fit a relative position bias table to another grid as BEiT's fine-tuning does.

    Parameters
    ----------
    table
        (offset, head): offsets of patches by rows, then those of the CLS token, which stay.
    old, new
        Rows and columns of the token grid.

    Returns
    -------
    ndarray
        (offset, head).
    """
    (old_rows, old_columns), (rows, columns) = ((2 * h - 1, 2 * w - 1) for h, w in (old, new))
    values = table[: old_rows * old_columns].reshape(old_rows, old_columns, -1).astype(float)
    for axis, (o, n) in enumerate(((old_rows, rows), (old_columns, columns))):
        places = beit_places(o, n)
        wanted = np.arange(n) - n // 2
        # Beyond the outermost place its value is kept.
        wanted = wanted.clip(places[0], places[-1])
        values = CubicSpline(places, values, axis=axis, bc_type="not-a-knot")(wanted)
    return np.concatenate([values.reshape(rows * columns, -1), table[old_rows * old_columns :]])
