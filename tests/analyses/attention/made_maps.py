"""Attention maps whose values tell where they come from, for figures of one model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.map_file import CLASS_DEVIATION, TOKEN_MAPS, AttentionMaps
from vitfeat.analyses.attention.summary import Tokens


def shares(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Random shares that sum to 1 over the last dimension."""
    values = rng.uniform(0.1, 1, shape)
    return (values / values.sum(axis=-1, keepdims=True)).astype(np.float32)


def made_maps(
    tokens: Tokens,
    layers: int = 3,
    heads: int = 2,
    *,
    model: str = "m",
    classes: int = 10,
    first_layer: int = 0,
    null_rows: str = "zero",
    seed: int = 0,
) -> AttentionMaps:
    """Random maps of all kinds that a model with these tokens has."""
    rng = np.random.default_rng(seed)
    rows, columns = tokens.grid
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, dimensions in TOKEN_MAPS.items():
        if name == "cls_query" and not tokens.has_cls:
            continue
        on_grid = dimensions == ("y", "x")
        count = tokens.n_spatial if on_grid else tokens.n_tokens
        shape = (layers, heads, rows, columns) if on_grid else (layers, heads, count)
        arrays[name] = shares(rng, layers, heads, count).reshape(shape)
        if classes > 1:
            arrays[name + CLASS_DEVIATION] = arrays[name] * np.float32(0.3)
    size = (2 * rows - 1, 2 * columns - 1)
    aligned = shares(rng, layers, heads, size[0] * size[1]).reshape(layers, heads, *size)
    arrays |= {"aligned": aligned, "aligned_by_coverage": aligned[..., ::-1, :].copy()}
    return AttentionMaps(
        model=model,
        dataset="digits",
        n_images=1599,
        tokens=tokens,
        null_rows=null_rows,
        layers=tuple(range(first_layer, first_layer + layers)),
        arrays=arrays,
        classes={label: str(label) for label in range(classes)},
    )
