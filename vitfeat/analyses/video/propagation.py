r"""Labels of a video's first frame carried through the others, by the features of its tokens.

Each token of a frame takes the labels of the tokens that resemble it most in the first frame and
in the frames just before, as far as they lie near its own place:

.. math::

    l_t(q) = \frac{\sum_{k \in T(q)} e^{s(q, k) / \tau} \, l(k)}
                  {\sum_{k \in T(q)} e^{s(q, k) / \tau}}

with :math:`s` the cosine of two tokens, and :math:`T(q)` the ``top`` tokens of largest :math:`s`
out of the neighbourhoods of :math:`q` in all context frames together.

References
----------
A. Jabri, A. Owens, A. Efros: Space-time correspondence as a contrastive random walk. NeurIPS 2020.
M. Caron et al.: Emerging properties in self-supervised vision transformers. ICCV 2021, whose
evaluation on DAVIS-2017 has the values that are the defaults here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.caches import compiled
from vitfeat.errors import AnalysisError

Features = NDArray[np.float32]
Labels = NDArray[np.float64]

# What it costs to bring a key into place for a product, in products of that key with a query.
_KEY_COST = 64

# Of the keys of a tile and their products, so that several layers fit side by side.
_TILE_BYTES = 96 * 2**20


def propagate(
    frames: Iterable[NDArray[Any]], first: NDArray[Any], settings: VideoSettings
) -> Iterator[Labels]:
    """Carry the labels of the first frame through a video; yield those of frames 1, 2, ...

    The context of a frame is the first frame and the ``context`` frames before it, no frame twice.
    Their labels are the soft ones, as they were given or found. Frames are features (Y, X, C) of
    any float type, the first one too; one at a time is read, and no more than the context is held,
    in float32. Labels are float64 (Y, X, label), each a weighted mean of those of ``first``, such
    as the share that each object has of a token.
    """
    places = settings.context + 1
    for number, features in enumerate(frames):
        if not number:
            if first.shape[:2] != features.shape[:2] or first.ndim != 3:
                raise AnalysisError(
                    f"labels of shape {first.shape} for features of shape {features.shape}: they "
                    "must be of the same tokens"
                )
            keys = np.empty((places, *features.shape), dtype=np.float32)
            labels = np.empty((places, *first.shape))
            keys[0], labels[0] = unit_tokens(features), first
            continue
        if features.shape != keys.shape[1:]:
            raise AnalysisError(
                f"frame {number} has features of shape {features.shape}, the first frame of "
                f"{keys.shape[1:]}: frames of one video must be of one size"
            )
        try:
            query = unit_tokens(features)
        except AnalysisError as error:
            raise AnalysisError(f"frame {number}: {error}") from error
        held = min(number, places)
        carried = carried_labels(query, keys[:held], labels[:held], settings)
        yield carried
        if settings.context:
            # The frame that is about to leave the context makes place; the first one stays.
            place = 1 + (number - 1) % settings.context
            keys[place], labels[place] = query, carried


def unit_tokens(features: NDArray[Any]) -> Features:
    """Divide every token of (Y, X, C) by its Euclidean norm; tokens of zeros stay so."""
    tokens = np.array(features, dtype=np.float32)
    # Squares of large values would leave the range of float32.
    largest = np.abs(tokens).max(axis=-1, keepdims=True, initial=0)
    if not np.isfinite(largest).all():
        raise AnalysisError("features hold values that are not finite")
    np.divide(tokens, largest, out=tokens, where=largest > 0)
    norms = np.sqrt(np.einsum("yxc,yxc->yx", tokens, tokens))[..., np.newaxis]
    np.divide(tokens, norms, out=tokens, where=norms > 0)
    return tokens


def carried_labels(
    query: Features, keys: Features, labels: Labels, settings: VideoSettings
) -> Labels:
    """Take the labels of one frame from its context, float64 (Y, X, label).

    Only pairs of tokens within a neighbourhood are multiplied, up to the rest of a tile: the grid
    is cut into tiles, and each is matched to the part of the grid that its tokens can see.

    Queries (Y, X, C) and keys (frame, Y, X, C) are unit tokens, labels (frame, Y, X, label). Tokens
    that tie with the last of the ``top`` count too, so that neither the order of the frames nor
    that of the tokens decides. (Cosines are float32 and tie when all their digits are the same.)
    Where a neighbourhood has fewer than ``top`` tokens, all count.
    """
    rows, columns, channels = query.shape
    reach = settings.neighbourhood
    take = _compiled()
    labels = np.ascontiguousarray(labels, dtype=np.float64)
    carried = np.empty((rows, columns, labels.shape[-1]))
    down, across = _tile(rows, columns, channels, len(keys), reach)
    for top, bottom in _cuts(rows, down):
        above, below = max(0, top - reach), min(rows, bottom + reach)
        for left, right in _cuts(columns, across):
            before, behind = max(0, left - reach), min(columns, right + reach)
            seen = np.ascontiguousarray(keys[:, above:below, before:behind])
            tokens = np.ascontiguousarray(query[top:bottom, left:right])
            cosines = tokens.reshape(-1, channels) @ seen.reshape(-1, channels).T
            take(
                cosines.reshape(*tokens.shape[:2], *seen.shape[:3]),
                labels,
                (top, left),
                (above, before),
                reach,
                settings.top,
                1 / settings.temperature,
                carried,
            )
    return carried


def _cuts(n: int, length: int) -> list[tuple[int, int]]:
    return [(start, min(start + length, n)) for start in range(0, n, length)]


@cache
def _tile(rows: int, columns: int, channels: int, frames: int, reach: int) -> tuple[int, int]:
    """Return rows and columns of tiles: small ones multiply less, but copy more."""

    def axis(n: int) -> list[tuple[int, int, int]]:
        """Tell of every length: pairs along an axis, keys of all cuts, and of the longest."""
        costs = []
        for length in range(1, n + 1):
            cuts = [(b - a, min(n, b + reach) - max(0, a - reach)) for a, b in _cuts(n, length)]
            costs.append((sum(q * k for q, k in cuts), sum(k for _, k in cuts), max(cuts)[1]))
        return costs

    best = (np.inf, 1, 1)
    for down, (pairs_y, keys_y, most_y) in enumerate(axis(rows), start=1):
        for across, (pairs_x, keys_x, most_x) in enumerate(axis(columns), start=1):
            floats = frames * most_y * most_x * (channels + down * across)
            if 4 * floats > _TILE_BYTES and (down, across) != (1, 1):
                continue
            best = min(best, (pairs_y * pairs_x + _KEY_COST * keys_y * keys_x, down, across))
    return best[1], best[2]


@cache
def _compiled() -> Callable[..., None]:
    return compiled(_take)


def _take(
    cosines: NDArray[np.float32],
    labels: Labels,
    tile: tuple[int, int],
    seen: tuple[int, int],
    reach: int,
    top: int,
    sharpness: float,
    carried: Labels,
) -> None:
    """Fill the labels of a tile from (row, column, frame, key row, key column).

    ``tile`` and ``seen`` are where the first query and the first key stand in the grid.
    """
    down, across = cosines.shape[:2]
    frames, rows, columns, n = labels.shape
    best = np.empty(top, np.float32)
    for i in range(down):
        y = tile[0] + i
        above, below = max(0, y - reach) - seen[0], min(rows, y + reach + 1) - seen[0]
        for j in range(across):
            x = tile[1] + j
            before, behind = max(0, x - reach) - seen[1], min(columns, x + reach + 1) - seen[1]
            best[:] = -np.inf
            last = best[top - 1]
            for frame in range(frames):
                for a in range(above, below):
                    line = cosines[i, j, frame, a]
                    for b in range(before, behind):
                        value = line[b]
                        if value > last:
                            place = top - 1
                            while place > 0 and best[place - 1] < value:
                                best[place] = best[place - 1]
                                place -= 1
                            best[place] = value
                            last = best[top - 1]
            total = 0.0
            mean = carried[y, x]
            mean[:] = 0
            for frame in range(frames):
                for a in range(above, below):
                    line = cosines[i, j, frame, a]
                    for b in range(before, behind):
                        if line[b] >= last:
                            # From the largest on, no temperature leaves the range of a float.
                            weight = np.exp((np.float64(line[b]) - best[0]) * sharpness)
                            total += weight
                            label = labels[frame, seen[0] + a, seen[1] + b]
                            for k in range(n):
                                mean[k] += weight * label[k]
            for k in range(n):
                mean[k] /= total
