"""Fitting position embeddings to another grid, each family the way that its own code does.

The ways differ by more than rounding: at 224 pixels, DINOv2's embedding of 37 x 37 comes out
differently with and without antialiasing. docs/models.md says which code each stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vitfeat.errors import ModelError

Grid = tuple[int, int]

# DINO adds it to the wanted side so that rounding down gives that side; the coordinates follow it.
_DINO_OFFSET = 0.1

# The base of MoCo-v3's wavelengths, as of Vaswani et al. 2017.
_TEMPERATURE = 10_000.0


def resize_embedding(
    embedding: Tensor,
    old: Grid,
    new: Grid,
    way: str,
    bound: Mapping[str, Any] = MappingProxyType({}),
) -> Tensor:
    """Fit an absolute position embedding to another grid; prefix tokens keep theirs.

    Returns (1, prefix + new rows x new columns, channel), float32.

    Parameters
    ----------
    embedding
        (1, prefix + old rows x old columns, channel), any floating type.
    way
        ``timm``: bicubic, antialiased (timm, open_clip, DINOv2 with registers). ``dino``: bicubic,
        coordinates from the scale factor (side + 0.1) / old side (DINO, DINOv2). ``mae``: bicubic
        (MAE). ``google``: bilinear between the corners' centres (Vision Transformer in JAX).
        ``moco``: MoCo-v3's fixed embedding, computed for the new grid. ``beit``: as ``timm``;
        BEiT itself has no absolute embedding.
    bound
        What an architecture sets otherwise in the way ``timm``
        (:func:`vitfeat.models.fitting.resampling`).
    """
    if old == new:
        return embedding
    n_prefix = embedding.shape[1] - math.prod(old)
    prefix, grid = embedding[:, :n_prefix], embedding[:, n_prefix:]
    image = grid.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = _timm(image, new, **bound) if way == "timm" else _WAYS[way](image, new)
    return torch.cat([prefix.float(), resized.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _timm(
    image: Tensor,
    new: Grid,
    *,
    interpolation: str = "bicubic",
    antialias: bool = True,
    align_corners: bool | None = None,
) -> Tensor:
    return functional.interpolate(
        image, new, mode=interpolation, antialias=antialias, align_corners=align_corners
    )


def _dino(image: Tensor, new: Grid) -> Tensor:
    factors = [
        (side + _DINO_OFFSET) / before for side, before in zip(new, image.shape[-2:], strict=True)
    ]
    return functional.interpolate(image, scale_factor=factors, mode="bicubic")


def _moco(image: Tensor, new: Grid) -> Tensor:
    rows, columns = image.shape[-2:]
    fixed = sine_cosine((rows, columns), image.shape[1])
    if not torch.allclose(image, fixed, atol=1e-3):
        raise ModelError(
            "has another position embedding than MoCo-v3's fixed one, which cannot be computed for "
            f"a grid of {new[0]} x {new[1]}; set positions to another way, or keep the image size"
        )
    return sine_cosine(new, image.shape[1])


_WAYS: dict[str, Callable[[Tensor, Grid], Tensor]] = {
    "timm": _timm,
    "beit": _timm,
    "mae": partial(functional.interpolate, mode="bicubic"),
    "dino": _dino,
    "google": partial(functional.interpolate, mode="bilinear", align_corners=True),
    "moco": _moco,
}


def sine_cosine(grid: Grid, width: int) -> Tensor:
    r"""Return MoCo-v3's fixed embedding (Chen et al. 2021), (1, width, rows, columns) float32.

    A quarter of the channels each for :math:`\sin y\omega_k, \cos y\omega_k, \sin x\omega_k,
    \cos x\omega_k` with :math:`\omega_k = 10000^{-4k / width}`, y the row and x the column. Its
    own code calls the first half "w": on its square grids, with tokens row by row, that half
    varies with the row.
    """
    quarter = width // 4
    omega = _TEMPERATURE ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows = torch.arange(grid[0], dtype=torch.float64)[:, None] * omega
    columns = torch.arange(grid[1], dtype=torch.float64)[:, None] * omega
    along_rows = torch.cat([rows.sin(), rows.cos()], 1).T[:, :, None].expand(-1, *grid)
    along_columns = torch.cat([columns.sin(), columns.cos()], 1).T[:, None, :].expand(-1, *grid)
    return torch.cat([along_rows, along_columns]).float()[None]


def resize_table(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Fit a table of relative position biases to another grid, as BEiT's own code does.

    A table is ((2 rows - 1)(2 columns - 1) + extra, head): offsets row by row, then extra entries
    for the CLS token, which are kept.

    The old offsets are laid out on the new axis in a geometric progression, dense around 0, and
    a cubic spline through them is read at the new offsets. BEiT does so for squares; here each
    side has its own progression, and one that does not change keeps its offsets.
    """
    if old == new:
        return table
    from scipy.interpolate import RectBivariateSpline

    sides = [2 * side - 1 for side in old]
    n_offsets = math.prod(sides)
    offsets, extra = table[:n_offsets], table[n_offsets:]
    places = [_progression(before, 2 * side - 1) for before, side in zip(sides, new, strict=True)]
    asked = [np.arange(-(side - 1), side, dtype=np.float64) for side in new]
    # A spline needs more points than its degree.
    degrees = [min(3, side - 1) for side in sides]
    heads = offsets.double().cpu().numpy().reshape(*sides, -1)
    resized = np.stack(
        [
            RectBivariateSpline(*places, heads[:, :, head], kx=degrees[0], ky=degrees[1])(*asked)
            for head in range(heads.shape[-1])
        ],
        axis=-1,
    )
    flat = torch.from_numpy(resized).reshape(-1, heads.shape[-1])
    return torch.cat([flat.to(table.dtype), extra])


def _progression(source: int, target: int) -> np.ndarray:
    """Place `source` offsets so that the outermost comes to ``target // 2``.

    Steps grow by the factor q, 1.01 < q < 1.5, found by bisection to 1e-6.
    """
    if source == target:
        return np.arange(-(source // 2), source // 2 + 1, dtype=np.float64)
    half, reach = source // 2, target // 2
    low, high, q = 1.01, 1.5, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**half) / (1 - q) > reach:
            high = q
        else:
            low = q
    steps = np.cumsum(q ** np.arange(half))
    return np.concatenate([-steps[::-1], [0.0], steps])
