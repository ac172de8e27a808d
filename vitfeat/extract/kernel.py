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
import torch
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
    heads = attention.shape[1]
    matrices = attention.contiguous().numpy()
    views = {name: tensor.numpy() for name, tensor in out.items()}
    # PyTorch's logarithm is vectorised, Numba's is not.
    spatial = attention[:, :, n_prefix:]
    out["entropy"].copy_(torch.special.entr(spatial).sum((-2, -1)) / spatial.shape[2])
    if n_prefix:
        out["prefix_query"].copy_(attention[:, :, :n_prefix])
    unused = np.zeros(heads, dtype=np.float32)
    for image in range(len(matrices)):
        _walk(
            matrices[image],
            n_prefix,
            grid[0],
            grid[1],
            views["spatial_query"][image],
            views["spatial_query_renormalised"][image],
            views["aligned"][image],
            views["n_null"][image],
            views["deviation_positions"][image] if "deviation_positions" in views else unused,
        )
        if "deviation_heads" in views:
            views["deviation_heads"][image] = _deviation_heads(matrices[image])


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)
def _walk(
    attention: NDArray[np.float32],
    n_prefix: int,
    rows: int,
    columns: int,
    mean: NDArray[np.float32],
    renormalised: NDArray[np.float32],
    aligned: NDArray[np.float32],
    n_null: NDArray[np.float32],
    deviation: NDArray[np.float32],
) -> None:
    heads, tokens, _ = attention.shape
    n = rows * columns
    zero = np.float32(0)
    share = np.float32(1) / np.float32(n)
    weighted = np.empty((rows, columns), np.float32)
    squares = np.empty(n, np.float32)
    for h in range(heads):
        mean[h] = zero
        renormalised[h] = zero
        aligned[h] = zero
        nulls = 0
        for y in range(rows):
            for x in range(columns):
                row = attention[h, n_prefix + y * columns + x]
                left = zero
                for k in range(n_prefix, tokens):
                    left += row[k]
                weight = zero
                if left == zero:
                    nulls += 1
                else:
                    weight = share / left
                for k in range(tokens):
                    mean[h, k] += row[k]
                for i in range(rows):
                    for j in range(columns):
                        weighted[i, j] = row[n_prefix + i * columns + j] * weight
                for i in range(rows):
                    target = aligned[h, rows - 1 - y + i]
                    first = columns - 1 - x
                    for j in range(columns):
                        target[first + j] += weighted[i, j]
                        renormalised[h, i, j] += weighted[i, j]
        for k in range(tokens):
            mean[h, k] *= share
        n_null[h] = nulls
        # The matrix is still in the cache: a second walk around the mean loses no digits.
        squares[:] = zero
        for q in range(n_prefix, tokens):
            row = attention[h, q]
            for k in range(n):
                difference = row[n_prefix + k] - mean[h, n_prefix + k]
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
