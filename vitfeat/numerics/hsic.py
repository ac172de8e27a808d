"""Hilbert-Schmidt independence criterion (HSIC) from sums over Gram matrices read in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.numerics.grams import Grams

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    r"""What HSIC needs of pairs of centred Gram matrices K, L of the same m images.

    The arrays have one shape, one entry per pair of layers.

    Attributes
    ----------
    images
        Number of images m.
    trace
        :math:`\sum_{i \ne j} K_{ij} L_{ij}`.
    diag
        :math:`\sum_i K_{ii} L_{ii}`.
    rows
        :math:`\sum_i k_i l_i` with row sums :math:`k_i = \sum_{j \ne i} K_{ij}`, l likewise.
    total
        :math:`\sum_i k_i \sum_i l_i`.
    """

    images: int
    trace: Floats
    diag: Floats
    rows: Floats
    total: Floats


def biased(terms: Terms) -> Floats:
    r"""HSIC\ :sub:`0` :math:`= tr(KHLH) / (m - 1)^2` (Gretton et al. 2005; Kornblith et al. 2019).

    For K and L centred over these very m images, so that :math:`HKH = K`.
    """
    return (terms.trace + terms.diag) / (terms.images - 1) ** 2


def unbiased(terms: Terms) -> Floats:
    r"""HSIC\ :sub:`1` of Song et al. 2012, eq. 5; Nguyen et al. 2021, eq. 3; for m >= 4.

    .. math:: \frac{1}{m (m - 3)} \left[ tr(\tilde K \tilde L)
        + \frac{1'\tilde K 1 \; 1'\tilde L 1}{(m - 1)(m - 2)}
        - \frac{2}{m - 2} 1'\tilde K \tilde L 1 \right]

    with K and L of zero diagonal. Adding to K a term that depends on its row or its column only
    changes nothing, so K may be raw or centred over any images.
    """
    m = terms.images
    inner = terms.trace + terms.total / ((m - 1) * (m - 2)) - 2 / (m - 2) * terms.rows
    return inner / (m * (m - 3))


@dataclass(frozen=True)
class BatchSums:
    """Terms of one batch: of layers of a with layers of b, and of each layer with itself."""

    ab: Terms  # shape (layer_a, layer_b)
    # aa, bb: shapes (layer_a,) and (layer_b,).
    aa: Terms
    bb: Terms
    # range_a, range_b: largest minus smallest entry of the raw Gram matrices over the batch, their
    # diagonals included, (layer_a,) and (layer_b,); zeros where they were not asked for.
    range_a: Floats
    range_b: Floats


def batch_sums(
    a: Grams,
    b: Grams,
    batches: Sequence[NDArray[np.intp]],
    *,
    max_bytes: int,
    ranges: bool = False,
) -> list[BatchSums]:
    """Read Gram matrices of the same images once, in blocks of rows; sum up every batch in float64.

    Batches are images, ascending, no image in two of them. ``max_bytes`` bounds the blocks in
    memory, one row of every layer being the least. Ranges of raw Gram matrices cost time.
    """
    n = a.n_images
    side_a = _Side(a, batches, ranges)
    side_b = side_a if b is a else _Side(b, batches, ranges)
    cross = np.zeros((len(batches), len(a.layers), len(b.layers)))
    rows_bytes = 12 * n * (len(a.layers) + len(b.layers)) * (2 if ranges else 1)
    step = max(1, max_bytes // rows_bytes)
    for start in range(0, n, step):
        stop = min(start + step, n)
        block_a = a.block(start, stop)
        block_b = block_a if b is a else b.block(start, stop)
        for index, batch in enumerate(batches):
            own = slice(*np.searchsorted(batch, (start, stop)))
            if own.start == own.stop:
                continue
            part_a = side_a.take(block_a, start, index, own)
            part_b = part_a if b is a else side_b.take(block_b, start, index, own)
            cross[index] += part_a @ part_b.T
    return [_sums(side_a, side_b, cross[index], index) for index in range(len(batches))]


class _Side:
    """Running sums over the Gram matrices of one side."""

    def __init__(self, grams: Grams, batches: Sequence[NDArray[np.intp]], ranges: bool) -> None:
        layers = len(grams.layers)
        self.grams, self.batches, self.ranges = grams, batches, ranges
        self.norm = np.zeros((len(batches), layers))
        self.rows = [np.zeros((layers, len(batch))) for batch in batches]
        self.low = np.full((len(batches), layers), np.inf if ranges else 0.0)
        self.high = -self.low

    def take(self, block: NDArray[np.float32], start: int, index: int, own: slice) -> Floats:
        """Entries of a batch within a block, (layer, rows x columns), the diagonal zero."""
        batch = self.batches[index]
        images = batch[own]
        whole = len(batch) == self.grams.n_images
        picked = block if whole else block[:, images[:, None] - start, batch]
        part = picked.astype(np.float64)
        if self.ranges:
            offset = self.grams.offset
            raw = part + offset[:, images, None] + offset[:, None, batch]
            self.low[index] = np.minimum(self.low[index], raw.min(axis=(1, 2)))
            self.high[index] = np.maximum(self.high[index], raw.max(axis=(1, 2)))
        part[:, np.arange(len(images)), np.arange(own.start, own.stop)] = 0
        self.rows[index][:, own] = self.grams.row_sum[:, images] if whole else part.sum(axis=2)
        flat = part.reshape(len(part), -1)
        # Not BLAS: threads for so cheap a sum cost a hundred times as much on a busy machine.
        self.norm[index] += np.einsum("ij,ij->i", flat, flat)
        return flat


def _sums(a: _Side, b: _Side, cross: Floats, index: int) -> BatchSums:
    batch = a.batches[index]
    rows_a, rows_b = a.rows[index], b.rows[index]
    diag_a, diag_b = a.grams.diag[:, batch], b.grams.diag[:, batch]
    total_a, total_b = rows_a.sum(axis=1), rows_b.sum(axis=1)

    def alone(trace: Floats, diag: Floats, rows: Floats, total: Floats) -> Terms:
        return Terms(
            images=len(batch),
            trace=trace,
            diag=np.square(diag).sum(axis=1),
            rows=np.square(rows).sum(axis=1),
            total=np.square(total),
        )

    return BatchSums(
        ab=Terms(
            images=len(batch),
            trace=cross,
            diag=diag_a @ diag_b.T,
            rows=rows_a @ rows_b.T,
            total=np.outer(total_a, total_b),
        ),
        aa=alone(a.norm[index], diag_a, rows_a, total_a),
        bb=alone(b.norm[index], diag_b, rows_b, total_b),
        range_a=a.high[index] - a.low[index],
        range_b=b.high[index] - b.low[index],
    )
