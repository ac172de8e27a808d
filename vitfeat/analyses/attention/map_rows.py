"""What figures of maps show, as rows of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.aligned import mean_offsets
from vitfeat.analyses.attention.map_file import OFFSET_MAPS, TOKEN_MAPS, AttentionMaps
from vitfeat.analyses.attention.metrics import offsets

Floats = NDArray[np.float64]

MAX_ROWS = 60_000
"""Rows of a table of values; those of more are means over heads."""

MEAN_OFFSET = "mean_offset"


class TokenRow(NamedTuple):
    """A value of a token map; `head` is empty for the mean over heads.

    ``token`` is ``cls``, ``register_0`` and so on, or ``spatial``, which alone has a row ``y`` and
    a column ``x``. Values are shares of attention, whatever the figure's scale.
    """

    dataset: str
    model: str
    map: str
    layer: int
    head: int | None
    token: str
    y: int | None
    x: int | None
    value: float


class OffsetRow(NamedTuple):
    """A value of an aligned map, or the mean offset of a head.

    Offsets are in patches, to the right and downwards. ``head`` is empty for the mean over heads.
    Rows of the map ``mean_offset`` have no value: (dy, dx) is the mean offset.
    """

    dataset: str
    model: str
    map: str
    layer: int
    head: int | None
    dy: float
    dx: float
    value: float | None


def token_rows(maps: AttentionMaps, ending: str = "") -> Iterator[TokenRow]:
    """Return the values of token maps as rows of a table.

    Of more than :data:`MAX_ROWS`, the means over heads: all values stand in the file of maps.

    Parameters
    ----------
    maps
        Of one model.
    ending
        As in :func:`~vitfeat.analyses.attention.token_maps.token_panels`.
    """
    tokens = maps.tokens
    names = [name for name in TOKEN_MAPS if name + ending in maps.arrays]
    given = [np.asarray(maps.arrays[name + ending], dtype=np.float64) for name in names]
    whole = sum(values.size for values in given) <= MAX_ROWS
    grid = [("spatial", y, x) for y, x in np.ndindex(tokens.grid)]
    names_before = ["cls"] * tokens.has_cls
    names_before += [f"register_{number}" for number in range(tokens.n_registers)]
    prefix = [(name, None, None) for name in names_before]
    for name, values in zip(names, given, strict=True):
        places = grid if TOKEN_MAPS[name] == ("y", "x") else [*prefix, *grid]
        for layer, head, flat in _by_head(values, maps.layers, whole=whole):
            for place, value in zip(places, flat, strict=True):
                yield TokenRow(maps.dataset, maps.model, name, layer, head, *place, value)


def _by_head(
    values: Floats, layers: Sequence[int], *, whole: bool
) -> Iterator[tuple[int, int | None, list[float]]]:
    """Give the flat values of each layer and head, or of each layer's mean over heads with a map.

    Parameters
    ----------
    values
        (layer, head, ...).
    layers
        Numbers of the layers.
    whole
        Whether heads are given one by one.
    """
    for layer, heads in zip(layers, values.reshape(*values.shape[:2], -1), strict=True):
        for head, flat in enumerate(heads if whole else [_mean(heads)]):
            # float32 has seven digits; more are noise in a table.
            yield layer, head if whole else None, [float(f"{value:.7g}") for value in flat]


def _mean(heads: Floats) -> Floats:
    """Mean over the heads that have a map; NaN if none has."""
    held = heads[np.isfinite(heads).all(axis=-1)]
    return np.asarray(held.mean(axis=0)) if len(held) else heads[0]


def offset_rows(maps: AttentionMaps) -> Iterator[OffsetRow]:
    """Return what the figure shows as rows of a table.

    Of more than :data:`MAX_ROWS` values, the means over heads: all stand in the file of maps.

    Parameters
    ----------
    maps
        Of one model.
    """
    names = [name for name in OFFSET_MAPS if name in maps.arrays]
    whole = sum(maps.arrays[name].size for name in names) <= MAX_ROWS
    down, right = (part.ravel().tolist() for part in offsets(maps.tokens.grid, "patches"))
    places = [(dy, dx) for dy in down for dx in right]
    for name in names:
        values = np.asarray(maps.arrays[name], dtype=np.float64)
        for layer, head, flat in _by_head(values, maps.layers, whole=whole):
            for (dy, dx), value in zip(places, flat, strict=True):
                yield OffsetRow(maps.dataset, maps.model, name, layer, head, dy, dx, value)
    for (place, head), _ in np.ndenumerate((found := mean_offsets(maps))[..., 0]):
        dy, dx = (float(f"{part:.7g}") for part in found[place, head])
        layer = maps.layers[place]
        yield OffsetRow(maps.dataset, maps.model, MEAN_OFFSET, layer, head, dy, dx, None)
