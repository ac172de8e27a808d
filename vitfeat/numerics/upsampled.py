r"""The place of an image whose features are nearest to given ones, in upsampled feature maps.

A map of Y x X tokens shows a rectangle of the image, its box. Upsampled bilinearly to the image's
own pixels (the convention ``align_corners=False``), the features at a place are

.. math:: f(y, x) = \sum_{ij} w_{yi} v_{xj} t_{ij}

where :math:`w_{yi} = \max(0, 1 - |u_y - i|)` with
:math:`u_y = Y (y + \frac12 - \mathrm{top}) / (\mathrm{bottom} - \mathrm{top}) - \frac12`, held
within 0 and Y - 1, and :math:`v` the same of x. Places count pixels from 0, whole numbers being
centres of pixels.

The upsampled map is never made. Its cosine with a query q needs the products of q with the tokens,
upsampled, and the norm of f, which follows from the products of neighbouring tokens:

.. math:: \cos(q, f) = \frac{\sum_{ij} w_{yi} v_{xj} \langle q, t_{ij} \rangle}{|q| \, |f|},
          \quad |f|^2 = \sum_{iji'j'} w_{yi} w_{yi'} v_{xj} v_{xj'} \langle t_{ij}, t_{i'j'} \rangle

This is exact, and C / 4 times less work than upsampling C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, where an image spans (0, 0, width, height)."""

TIE = 1e-12
"""Cosines that differ by less are equal: they differ by rounding."""

# Of norms, squared, over those of the tokens that are mixed: below, what is left is rounding.
_CANCELLED = 1e-12

# Cosines of so many queries and rows of pixels are made at once: they stay in a core's cache.
_QUERIES, _ROWS = 16, 16


@dataclass(frozen=True)
class Nearest:
    """Where queries have their greatest cosine: (query, x and y in pixels from 0).

    ``tied`` says whether other places have it as well.
    """

    places: Floats
    cosines: Floats
    tied: NDArray[np.bool_]


@dataclass(frozen=True)
class _Axis:
    """The rows or columns of pixels that are candidates, and how they mix tokens.

    Beyond the centre of the outermost token the map does not change. Such a run of pixels is one
    candidate, which stands in its middle.
    """

    places: Floats  # (candidate,): where they are, in pixels from 0
    runs: NDArray[np.int64]  # (candidate,): how many pixels each is
    weights: Floats  # (candidate, token)


def token_places(places: ArrayLike, start: float, stop: float, n_tokens: int) -> Floats:
    """Return where places along an axis are between the centres of tokens, the first being 0.

    ``places``, ``start`` and ``stop`` of the tokens are in pixels; whole places are centres of
    pixels.
    """
    at = n_tokens * (np.asarray(places) + 0.5 - start) / (stop - start) - 0.5
    return np.asarray(np.clip(at, 0, n_tokens - 1))


def pixels_within(n_pixels: int, start: float, stop: float) -> range:
    """Return the rows or columns of an image whose centres a span of tokens reaches."""
    return range(max(0, ceil(start - 0.5)), min(n_pixels, floor(stop - 0.5) + 1))


def features_at(tokens: ArrayLike, box: Box, places: ArrayLike) -> Floats:
    """Return the upsampled features at any places (place, x and y), which are not rounded.

    Of tokens (Y, X, channel) that show the box, in pixels of the image; float64 (place, channel).
    """
    features = _checked(tokens)
    x, y = np.asarray(places, dtype=np.float64).reshape(-1, 2).T
    left, top, right, bottom = box
    rows, columns = features.shape[:2]
    down = _weights(token_places(y, top, bottom, rows), rows)
    across = _weights(token_places(x, left, right, columns), columns)
    mixed = np.einsum("pi,pj->pij", down, across).reshape(-1, rows * columns)
    return np.asarray(mixed @ features.reshape(rows * columns, -1))


def nearest_pixels(
    queries: ArrayLike, tokens: ArrayLike, box: Box, size: tuple[int, int]
) -> Nearest:
    """Find the pixels of an image whose upsampled features have the greatest cosine with queries.

    Only pixels of the image that the map shows are candidates: nothing of a padding is. Of places
    with equal cosines (see :data:`TIE`) the uppermost counts, of these the leftmost. A vector of
    zeros has the cosine 0 with all. Queries are (query, channel), tokens (Y, X, channel); ``size``
    is the image's width and height.
    """
    wanted, features = _checked(queries), _checked(tokens)
    left, top, right, bottom = box
    n_rows, n_columns, n_channels = features.shape
    down, across = _axis(size[1], top, bottom, n_rows), _axis(size[0], left, right, n_columns)
    if not len(down.places) or not len(across.places):
        raise AnalysisError(f"the box {box} shows no pixel of an image of {size[0]} x {size[1]}")
    norms = np.linalg.norm(wanted, axis=1, keepdims=True)
    unit = np.divide(wanted, norms, out=np.zeros_like(wanted), where=norms > 0)
    products = (features.reshape(-1, n_channels) @ unit.T).reshape(n_rows, n_columns, -1)
    groups = [slice(first, first + _QUERIES) for first in range(0, len(unit), _QUERIES)]
    # Each (row of tokens, query, column of pixels).
    mixed = [
        np.ascontiguousarray(products[..., group].transpose(0, 2, 1) @ across.weights.T)
        for group in groups
    ]
    norms_of = _Norms(features, across.weights)
    best = _Best(len(unit))
    for first in range(0, len(down.places), _ROWS):
        weights = down.weights[first : first + _ROWS]
        inverse = norms_of.inverse(weights)[:, None]
        # Rows of pixels close to one another mix few rows of tokens.
        used = np.flatnonzero(weights.any(axis=0))
        some = slice(used[0], used[-1] + 1)
        for group, products_of in zip(groups, mixed, strict=True):
            cosines = np.tensordot(weights[:, some], products_of[some], axes=1)
            cosines *= inverse
            best.update(group, cosines, first, down.runs, across.runs)
    places = np.stack((across.places[best.column], down.places[best.row]), axis=1)
    return Nearest(places, best.cosine, best.tied)


class _Best:
    """The greatest cosines so far, and where they are."""

    def __init__(self, n_queries: int) -> None:
        self.cosine = np.full(n_queries, -np.inf)
        self.row, self.column = np.zeros((2, n_queries), dtype=np.intp)
        self.tied = np.zeros(n_queries, dtype=bool)

    def update(
        self,
        group: slice,
        cosines: Floats,
        first: int,
        down: NDArray[np.int64],
        across: NDArray[np.int64],
    ) -> None:
        """Look at further rows (row, query, column), below those before, of a group of queries.

        ``first`` is the number of the first row; ``down`` and ``across`` how many pixels rows and
        columns are.
        """
        highest = cosines.max(axis=(0, 2))
        for place in np.flatnonzero(highest >= self.cosine[group] - TIE):
            query, value = group.start + int(place), float(highest[place])
            if value > self.cosine[query] + TIE:
                rows, columns = np.nonzero(cosines[:, place] >= value - TIE)
                self.row[query], self.column[query] = first + rows[0], columns[0]
                self.tied[query] = (down[first + rows] * across[columns]).sum() > 1
            else:
                # The place above counts.
                self.tied[query] = True
            self.cosine[query] = max(value, self.cosine[query])


def _checked(features: ArrayLike) -> Floats:
    found = np.asarray(features).astype(np.float64)
    if not np.isfinite(found).all():
        raise AnalysisError("features that are not finite (NaN or infinite)")
    return found


def _axis(n_pixels: int, start: float, stop: float, n_tokens: int) -> _Axis:
    pixels = np.array(pixels_within(n_pixels, start, stop), dtype=np.float64)
    at = token_places(pixels, start, stop, n_tokens)
    # A pixel may lie on the centre of the outermost token but for rounding.
    _, first, run, lengths = np.unique(
        at.round(9), return_index=True, return_inverse=True, return_counts=True
    )
    return _Axis(np.bincount(run, pixels) / lengths, lengths, _weights(at[first], n_tokens))


def _weights(at: Floats, n_tokens: int) -> Floats:
    """Return (place, token): linear between the centres of tokens."""
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n_tokens))))


class _Norms:
    """Norms of an upsampled map, from the products of neighbouring tokens.

    Along an axis a place mixes two neighbours, so weights enter as their squares and as twice the
    product of neighbouring ones.
    """

    def __init__(self, tokens: Floats, across: Floats) -> None:
        def products(a: Floats, b: Floats) -> Floats:
            return np.asarray(np.einsum("yxc,yxc->yx", a, b))

        own = products(tokens, tokens)
        beside = products(tokens[:, :-1], tokens[:, 1:])
        below = products(tokens[:-1], tokens[1:])
        falling = products(tokens[:-1, :-1], tokens[1:, 1:])
        rising = products(tokens[:-1, 1:], tokens[1:, :-1])
        squares, neighbours = _squared(across)
        # Both diagonals share one product of four weights.
        self._same_row = own @ squares.T + beside @ neighbours.T
        self._two_rows = below @ squares.T + (falling + rising) @ neighbours.T / 2
        self._mixed = own @ across.T

    def inverse(self, down: Floats) -> Floats:
        """Return 1 / |f| of rows of pixels, 0 where f vanishes: (row, column)."""
        squares, neighbours = _squared(down)
        norms = squares @ self._same_row + neighbours @ self._two_rows
        # The mean of squared norms bounds the squared norm of the mean.
        vanishes = norms <= _CANCELLED * (down @ self._mixed)
        return np.asarray(np.where(vanishes, 0.0, 1 / np.sqrt(np.where(vanishes, 1.0, norms))))


def _squared(weights: Floats) -> tuple[Floats, Floats]:
    return weights**2, 2 * weights[:, :-1] * weights[:, 1:]
