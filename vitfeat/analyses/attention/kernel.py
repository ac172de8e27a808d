"""The attention summaries on a CPU, in one walk through the matrices of an image.

The same numbers as ``vitfeat.extraction.summary.summarise``, which defines them, from arrays: an
extraction on a CPU makes them here, and so does an analysis that is given the attention itself.
PyTorch would read the attention anew for each of some fifty operations; here each head's matrix is
walked while it is in the core's cache. The kernel releases the GIL and uses one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import AttentionSummary, Tokens
from vitfeat.caches import compiled
from vitfeat.errors import AnalysisError

LEAST = float(np.finfo(np.float32).tiny)
"""The smallest normal float32: what a row has on spatial keys below it counts as nothing.

Numbers below have lost digits, GPUs may take them for zero, and their inverse is infinite.
"""

# Sums may be reordered so that they vectorise; NaN and inf keep their meaning.
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


def summarise(attention: NDArray[Any], tokens: Tokens) -> AttentionSummary:
    """Reduce attention to the summaries that all metrics are made of.

    `attention` is (..., head, query, key) after the softmax, of any float type; it is not changed,
    and sums are float32.

    Returns float32, with the leading dimensions of ``attention``.
    """
    n = tokens.n_tokens
    if attention.ndim < 3 or attention.shape[-2:] != (n, n) or not attention.shape[-3]:
        raise AnalysisError(
            f"attention of shape {attention.shape} is not (..., head, query, key) of {n} tokens: "
            "give the grid, CLS and registers of its model"
        )
    *lead, heads, _, _ = attention.shape
    arrays = {
        name: np.empty((*lead, *shape), dtype=np.float32)
        for name, shape in AttentionSummary.shapes(heads, tokens).items()
    }
    images = prod(lead)
    summarise_images(
        attention.reshape(images, heads, n, n),
        tokens.n_prefix,
        tokens.grid,
        # Views, for new arrays are contiguous.
        {name: array.reshape(images, *array.shape[len(lead) :]) for name, array in arrays.items()},
    )
    return AttentionSummary(arrays, tokens)


def summarise_images(
    attention: NDArray[Any],
    n_prefix: int,
    grid: tuple[int, int],
    out: Mapping[str, NDArray[np.float32]],
) -> None:
    """Fill float32 arrays (image, ...), those of :meth:`AttentionSummary.shapes`, for one layer.

    Attention is (image, head, query, key) of any float type, and not changed.
    """
    walk, deviation_heads = _compiled()
    heads, queries, keys = attention.shape[1:]
    unused = np.zeros(heads, dtype=np.float32)
    logarithms = np.empty((heads, queries - n_prefix, keys), dtype=np.float32)
    for image, stored in enumerate(attention):
        # An image at a time: in float32 the whole batch would be several times its size.
        matrix = np.ascontiguousarray(stored, dtype=np.float32)
        if n_prefix:
            out["prefix_query"][image] = matrix[:, :n_prefix]
        with np.errstate(divide="ignore", invalid="ignore"):
            # NumPy's logarithm is vectorised, Numba's is not. That of zero is never used.
            np.log(matrix[:, n_prefix:], out=logarithms)
        walk(
            matrix,
            logarithms,
            n_prefix,
            grid[0],
            grid[1],
            out["spatial_query"][image],
            out["spatial_query_renormalised"][image].reshape(len(matrix), -1),
            out["aligned"][image],
            out["n_null"][image],
            out["entropy"][image],
            out["deviation_positions"][image] if "deviation_positions" in out else unused,
        )
        if "deviation_heads" in out:
            spatial, every = deviation_heads(matrix, n_prefix)
            out["deviation_heads"][image], out["deviation_heads_all"][image] = spatial, every


class _Kernels(NamedTuple):
    walk: Callable[..., None]
    deviation_heads: Callable[..., tuple[float, float]]


@cache
def _compiled() -> _Kernels:
    kernels = (compiled(kernel, fastmath=_FASTMATH) for kernel in (_walk, _deviation_heads))
    return _Kernels(*kernels)


def _walk(
    attention: NDArray[np.float32],
    logarithms: NDArray[np.float32],
    n_prefix: int,
    rows: int,
    columns: int,
    mean: NDArray[np.float32],
    renormalised: NDArray[np.float32],
    aligned: NDArray[np.float32],
    n_null: NDArray[np.float32],
    entropy: NDArray[np.float32],
    deviation: NDArray[np.float32],
) -> None:
    """Fill the summaries of every head of one image; arrays are (head, ...).

    Inner loops run over contiguous slices without branches, so that they vectorise.
    """
    heads, tokens, _ = attention.shape
    n = rows * columns
    zero = np.float32(0)
    share = np.float32(1) / np.float32(n)
    # Maps are first shifted along y alone, which keeps a map contiguous: one sum for each column x
    # of the queries. The shift along x comes once at the end.
    shifted = np.empty((columns, (2 * rows - 1) * columns), np.float32)
    squares = np.empty(n, np.float32)
    for h in range(heads):
        row_mean, row_renormalised = mean[h], renormalised[h]
        row_mean[:] = zero
        row_renormalised[:] = zero
        shifted[:] = zero
        nulls = 0
        disorder = 0.0
        for q in range(n):
            row = attention[h, n_prefix + q]
            patches = row[n_prefix:]
            left = zero
            for k in range(n):
                left += patches[k]
            weight = zero
            if left < LEAST:
                nulls += 1
            else:
                weight = share / left
            for k in range(tokens):
                row_mean[k] += row[k]
            first = (rows - 1 - q // columns) * columns
            target = shifted[q % columns, first : first + n]
            for k in range(n):
                value = patches[k] * weight
                target[k] += value
                row_renormalised[k] += value
            logarithm = logarithms[h, q]
            row_disorder = zero
            for k in range(tokens):
                row_disorder -= row[k] * logarithm[k] if row[k] > zero else zero
            disorder += float(row_disorder)
        for k in range(tokens):
            row_mean[k] *= share
        n_null[h] = nulls
        entropy[h] = disorder * share
        aligned[h] = zero
        for x in range(columns):
            for y in range(2 * rows - 1):
                line = aligned[h, y, columns - 1 - x : 2 * columns - 1 - x]
                for j in range(columns):
                    line[j] += shifted[x, y * columns + j]
        # The matrix is still in the cache: a second walk around the mean loses no digits.
        centre = row_mean[n_prefix:]
        squares[:] = zero
        for q in range(n):
            patches = attention[h, n_prefix + q, n_prefix:]
            for k in range(n):
                difference = patches[k] - centre[k]
                squares[k] += difference * difference
        total = zero
        for k in range(n):
            total += np.sqrt(squares[k] / np.float32(max(n - 1, 1)))
        deviation[h] = total * share


def _deviation_heads(attention: NDArray[np.float32], n_prefix: int) -> tuple[float, float]:
    """Return the mean deviation over spatial queries and keys, and over all of them."""
    heads, queries, keys = attention.shape
    mean = np.empty(keys, np.float32)
    squares = np.empty(keys, np.float32)
    spatial, every = 0.0, 0.0
    for q in range(queries):
        mean[:] = np.float32(0)
        squares[:] = np.float32(0)
        for h in range(heads):
            for k in range(keys):
                mean[k] += attention[h, q, k]
        for k in range(keys):
            mean[k] /= np.float32(heads)
        for h in range(heads):
            for k in range(keys):
                difference = attention[h, q, k] - mean[k]
                squares[k] += difference * difference
        prefix, rest = np.float32(0), np.float32(0)
        for k in range(n_prefix):
            prefix += np.sqrt(squares[k] / np.float32(heads - 1))
        for k in range(n_prefix, keys):
            rest += np.sqrt(squares[k] / np.float32(heads - 1))
        every += float(prefix) + float(rest)
        if q >= n_prefix:
            spatial += float(rest)
    return spatial / (queries - n_prefix) ** 2, every / queries**2
