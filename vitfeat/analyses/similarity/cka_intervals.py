"""Debiased linear CKA of two layers, on all images and on many halves of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitfeat.analyses.cka.compute import DEGENERATE
from vitfeat.analyses.similarity.half_samples import Halves
from vitfeat.analyses.similarity.layers import Floats, Layer
from vitfeat.numerics.hsic import Terms, unbiased


@dataclass(frozen=True, eq=False)
class Unbiased:
    """Centred Gram matrix without its diagonal, (n, n), and its unbiased HSIC with itself."""

    products: Floats
    hsic: float


def prepare_cka(layer: Layer) -> Unbiased | None:
    """Prepare a layer for :func:`cka`; None where its HSIC with itself vanishes."""
    diag = layer.centred.diagonal()
    products = layer.centred.copy()
    np.fill_diagonal(products, 0)
    hsic = _hsic(products, products)
    if not layer.varies or hsic <= DEGENERATE * float(diag.mean()) ** 2:
        return None
    return Unbiased(products, hsic)


def cka(a: Unbiased, b: Unbiased) -> float:
    r"""Debiased linear CKA.

    .. math:: \frac{HSIC_1(K, L)}{\sqrt{HSIC_1(K, K) \, HSIC_1(L, L)}}

    with the unbiased HSIC of Song et al. 2012; the estimator ``debiased`` of
    :func:`vitfeat.analyses.cka.compute.cka`. At most 1, near 0 for unrelated features.
    """
    return _hsic(a.products, b.products) / float(np.sqrt(a.hsic * b.hsic))


def _hsic(k: Floats, other: Floats) -> float:
    rows_k, rows_l = k.sum(axis=1), other.sum(axis=1)
    terms = Terms(
        images=len(k),
        trace=np.asarray(np.einsum("ij,ij->", k, other)),
        diag=np.zeros(()),
        rows=np.asarray(rows_k @ rows_l),
        total=np.asarray(rows_k.sum() * rows_l.sum()),
    )
    return float(unbiased(terms))


def resample_cka(a: Sequence[Unbiased], b: Sequence[Unbiased], halves: Halves) -> Floats:
    r""":func:`cka` on halves of the images, all halves at once.

    With w the 0/1 vector of a half, the sums over its images are
    :math:`\sum_{ij} K_{ij} L_{ij} = w'(K \circ L) w`, the row sums of K are :math:`K w`, and their
    total is :math:`w' K w`: three products of n x n by n x B matrices for B halves.

    Returns (resample, layer_a, layer_b).
    """
    weights = np.ascontiguousarray(halves.T, dtype=np.float64)

    def rows(side: Sequence[Unbiased]) -> list[Floats]:
        return [(layer.products @ weights) * weights for layer in side]

    rows_a = rows(a)
    rows_b = rows_a if b is a else rows(b)

    def hsic(k: Unbiased, other: Unbiased, rows_k: Floats, rows_l: Floats) -> Floats:
        product = k.products * other.products
        terms = Terms(
            images=int(halves[0].sum()),
            trace=np.einsum("ib,ib->b", product @ weights, weights),
            diag=np.zeros(len(halves)),
            rows=np.einsum("ib,ib->b", rows_k, rows_l),
            total=rows_k.sum(axis=0) * rows_l.sum(axis=0),
        )
        return unbiased(terms)

    def alone(side: Sequence[Unbiased], own: Sequence[Floats]) -> Floats:
        return np.stack([hsic(k, k, r, r) for k, r in zip(side, own, strict=True)], axis=1)

    norm_a = alone(a, rows_a)
    norm_b = norm_a if b is a else alone(b, rows_b)
    cross = np.empty((len(halves), len(a), len(b)))
    for i, j in np.ndindex(len(a), len(b)):
        cross[:, i, j] = hsic(a[i], b[j], rows_a[i], rows_b[j])
    return np.asarray(cross / np.sqrt(norm_a[:, :, None] * norm_b[:, None, :]))
