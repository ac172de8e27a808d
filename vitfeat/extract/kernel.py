"""The attention summaries of one image on a CPU, in one walk through its matrices.

The same numbers as :func:`vitfeat.extract.summary.summarise`, which defines them. PyTorch would
read the attention anew for each of some fifty operations; here each head's matrix is walked while
it is in the core's cache. The kernel releases the GIL and uses one thread: the extraction gives
every thread its own images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Sums may be reordered so that they vectorise; NaN and inf keep their meaning.
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


def summarise_images(
    attention: Tensor, n_prefix: int, grid: tuple[int, int], out: Mapping[str, Tensor]
) -> None:
    """Write the summaries of some images of one layer.

    Parameters
    ----------
    attention
        float32 (image, head, query, key) on the CPU; not changed.
    n_prefix
        Number of prefix tokens.
    grid
        Rows and columns of the token grid.
    out
        float32 tensors by name, (image, ...) each, as :func:`summarise` gives them.
    """
    matrices = attention.contiguous().numpy()
    views = {name: tensor.numpy() for name, tensor in out.items()}
    if n_prefix:
        out["prefix_query"].copy_(attention[:, :, :n_prefix])
    unused = np.zeros(attention.shape[1], dtype=np.float32)
    for image, matrix in enumerate(matrices):
        with np.errstate(divide="ignore"):
            # NumPy's logarithm is vectorised, Numba's is not. That of zero is never used.
            logarithms = np.log(matrix[:, n_prefix:])
        _walk(
            matrix,
            logarithms,
            n_prefix,
            grid[0],
            grid[1],
            views["spatial_query"][image],
            views["spatial_query_renormalised"][image].reshape(len(matrix), -1),
            views["aligned"][image],
            views["n_null"][image],
            views["entropy"][image],
            views["deviation_positions"][image] if "deviation_positions" in views else unused,
        )
        if "deviation_heads" in views:
            views["deviation_heads"][image] = _deviation_heads(matrix)


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)
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
            if left == zero:
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


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)
def _deviation_heads(attention: NDArray[np.float32]) -> float:
    heads, queries, keys = attention.shape
    mean = np.empty(keys, np.float32)
    squares = np.empty(keys, np.float32)
    total = 0.0
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
        row = np.float32(0)
        for k in range(keys):
            row += np.sqrt(squares[k] / np.float32(heads - 1))
        total += float(row)
    mean_deviation: float = total / (queries * keys)
    return mean_deviation
