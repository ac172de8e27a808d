r"""Attention maps of single images: what each layer and head attends to, seen from a query.

The map of a layer, head and query is the query's row of the attention over the keys of the grid,

.. math:: M_{lhq}(y, x) = A_{l,h,q,(y,x)}

and for the position ``mean`` the mean of these maps over all spatial queries. A map sums to what
the query does not give to the CLS token and the registers; :class:`Maps` keeps those shares beside
it. Renormalised rows are divided by what they give to spatial keys before any mean is taken, as in
the summary ``spatial_query_renormalised``; a row that gives them nothing is zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.rollout import rollout_row
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.errors import AnalysisError
from vitfeat.text import nearest

Floats = NDArray[np.float64]

NAMES = ("cls", "top", "left", "centre", "right", "bottom", "mean", "diagonal")
"""Positions by name; beside them any token of the grid as ``ROW,COLUMN``."""

_TOKEN = re.compile(r"([0-9]+) *, *([0-9]+)")


@dataclass(frozen=True)
class Position:
    """A query that maps are of."""

    name: str  # ``cls``, ``mean`` (of all spatial queries), ``top``, ..., or ``ROW,COLUMN``
    # Row and column on the grid, from 0 at the upper left; None for ``cls`` and ``mean``.
    token: tuple[int, int] | None = None


def positions(names: Sequence[str], tokens: Tokens) -> list[Position]:
    """Turn names of positions into queries of a grid of Y rows and X columns, each once.

    ``top`` and ``bottom`` are the middle of the first and the last row, ``left`` and ``right`` the
    middle of the first and the last column, ``centre`` the middle of both. The middle of n is
    n // 2 from 0: of an even number the lower or right one of the two. ``diagonal`` is the tokens
    (i, i), i = 0 ... min(Y, X) - 1, which are on every grid, also one that is taller than wide.
    """
    every = [position for name in names for position in _positions(name.strip(), tokens)]
    return list({position.name: position for position in every}.values())


def _positions(name: str, tokens: Tokens) -> Iterator[Position]:
    rows, columns = tokens.grid
    middle, centre = rows // 2, columns // 2
    named = {
        "top": (0, centre),
        "left": (middle, 0),
        "centre": (middle, centre),
        "right": (middle, columns - 1),
        "bottom": (rows - 1, centre),
    }
    if name in named:
        yield Position(name, named[name])
    elif name == "mean":
        yield Position(name)
    elif name == "cls":
        if not tokens.has_cls:
            raise AnalysisError(
                "the position 'cls' is asked for, and the model has no CLS token: leave it out, or "
                "take 'mean'"
            )
        yield Position(name)
    elif name == "diagonal":
        for place in range(min(rows, columns)):
            yield Position(f"{place},{place}", (place, place))
    elif match := _TOKEN.fullmatch(name):
        row, column = int(match[1]), int(match[2])
        if row >= rows or column >= columns:
            raise AnalysisError(
                f"the position '{row},{column}' is outside the grid of {rows} rows and {columns} "
                f"columns: rows are 0 to {rows - 1}, columns 0 to {columns - 1}"
            )
        yield Position(f"{row},{column}", (row, column))
    else:
        raise AnalysisError(
            f"unknown position {name!r}{nearest(name, NAMES)}; there are {', '.join(NAMES)}, and "
            "ROW,COLUMN"
        )


@dataclass(frozen=True)
class Maps:
    """Attention maps, for any leading dimensions."""

    spatial: Floats  # (..., y, x): attention to the keys of the grid
    # on_cls, on_registers: (...): attention to the CLS token, and to all registers together; 0
    # where the model has none. Never renormalised.
    on_cls: Floats
    on_registers: Floats

    def __getitem__(self, index: Any) -> Maps:
        """Index the leading dimensions."""
        index = index if isinstance(index, tuple) else (index,)
        return Maps(self.spatial[(*index, ...)], self.on_cls[index], self.on_registers[index])


def stack(parts: Sequence[Maps]) -> Maps:
    """Join maps of one shape along a new first dimension."""
    names = ("spatial", "on_cls", "on_registers")
    return Maps(*(np.stack([getattr(part, name) for part in parts]) for name in names))


def query_maps(
    attention: NDArray[Any],
    chosen: Sequence[Position],
    tokens: Tokens,
    *,
    renormalised: bool = False,
) -> Maps:
    """Take the maps of some queries out of an attention.

    `attention` is (..., head, query, key) after the softmax, of any float type; it is not changed.
    Where `renormalised`, each row is divided by its sum over spatial keys before it is averaged.

    Returns (..., 1 + head, position): shares of the query's attention, in float64; the mean over
    heads stands before them.
    """
    if attention.shape[-2:] != (tokens.n_tokens,) * 2:
        raise AnalysisError(
            f"attention of shape {attention.shape} is not of {tokens.n_tokens} tokens: give the "
            "grid, CLS and registers of its model"
        )
    parts = []
    for position in chosen:
        if position.name == "mean":
            rows = attention[..., tokens.n_prefix :, :]
        else:
            row, column = position.token or (0, 0)
            query = tokens.n_prefix + row * tokens.grid[1] + column if position.token else 0
            rows = attention[..., [query], :]
        parts.append(_mean_of_rows(rows, tokens, renormalised))
    maps = stack(parts)
    least = min(part.min() for part in vars(maps).values())
    if not sum(part.sum() for part in vars(maps).values()) < np.inf or least < 0:
        raise AnalysisError(
            "attention has values that are negative or not finite: give attention after the softmax"
        )
    axis = attention.ndim - 3
    moved = [np.moveaxis(part, 0, axis + 1) for part in vars(maps).values()]
    return Maps(*(np.concatenate([p.mean(axis, keepdims=True), p], axis) for p in moved))


def _mean_of_rows(rows: NDArray[Any], tokens: Tokens, renormalised: bool) -> Maps:
    mean = rows.mean(-2, dtype=np.float64)
    spatial = mean[..., tokens.n_prefix :]
    if renormalised:
        shares = rows[..., tokens.n_prefix :].astype(np.float64)
        left = shares.sum(-1, keepdims=True)
        np.divide(shares, left, out=shares, where=left > 0)
        spatial = shares.mean(-2)
    return _split(mean, spatial, tokens)


def _split(rows: Floats, spatial: Floats, tokens: Tokens) -> Maps:
    return Maps(
        spatial.reshape(*spatial.shape[:-1], *tokens.grid),
        rows[..., : int(tokens.has_cls)].sum(-1),
        rows[..., tokens.registers].sum(-1),
    )


def rollout_maps(attention: NDArray[Any], tokens: Tokens) -> Maps:
    """Follow the CLS token of every layer's output down to the tokens that the first was given.

    The CLS token's :func:`vitfeat.analyses.attention.rollout.rollout_row` over the layers up to
    each one; the last is the attention rollout of Abnar & Zuidema 2020.

    `attention` is (layer, head, query, key) after the softmax, the first layer first and none left
    out; there is a CLS token.

    Returns (layer,): shares of the CLS token, never renormalised.
    """
    up_to = range(1, len(attention) + 1)
    rows = np.stack([rollout_row(attention[:count]) for count in up_to])
    return _split(rows, rows[:, tokens.n_prefix :], tokens)
