"""Measures from the eigenvectors of centred Gram matrices: orthogonal Procrustes and SVCCA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitfeat.analyses.similarity.layers import RESOLUTION, Floats, Layer

ROUNDING = 10.0
"""Eigenvalues below so many times what rounding alone can give are taken for zero."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues (r,) and eigenvectors (n, r) of a centred Gram matrix, the largest first.

    They are the squared singular values of the centred features, and the left singular vectors.
    """

    values: Floats
    vectors: Floats


def spectrum(layer: Layer) -> Spectrum | None:
    """Decompose a layer's centred Gram matrix; None where its features are constant.

    Directions whose eigenvalue is within the matrix's rounding error are left out: features of d
    channels have at most d.
    """
    if not layer.varies:
        return None
    values, vectors = np.linalg.eigh(layer.centred)
    error = RESOLUTION * float(np.linalg.norm(layer.centred)) / np.sqrt(layer.n_images)
    kept = np.flatnonzero(values > ROUNDING * error)[::-1]
    return Spectrum(values[kept], np.ascontiguousarray(vectors[:, kept]))


def procrustes(a: Spectrum, b: Spectrum) -> float:
    r"""Orthogonal Procrustes similarity.

    .. math:: \frac{\lVert X^\top Y \rVert_*}{\lVert X \rVert_F \lVert Y \rVert_F}
        = \frac{\lVert K^{1/2} L^{1/2} \rVert_*}{\sqrt{tr K \; tr L}} = 1 - \frac{d^2}{2}

    with centred features X, Y, the nuclear norm (sum of singular values), and d the Procrustes
    distance :math:`\min_Q \lVert X - Y Q \rVert_F` of features scaled to norm 1 under orthogonal
    Q (Schönemann 1966; Ding et al. 2021; Williams et al. 2021, whose angular distance is its
    arccosine). From 0 to 1.
    """
    cross = np.sqrt(a.values)[:, None] * (a.vectors.T @ b.vectors) * np.sqrt(b.values)
    nuclear = np.linalg.svd(cross, compute_uv=False).sum()
    return float(min(1.0, nuclear / np.sqrt(a.values.sum() * b.values.sum())))


def svcca(a: Spectrum, b: Spectrum, *, variance: float) -> float:
    r"""Singular vector canonical correlation.

    .. math:: \frac{1}{\min(r_a, r_b)} \sum_i \sigma_i(U_a^\top U_b)

    where U holds the leading r left singular vectors of the centred features, as few as have the
    given share of the variance; the singular values are the canonical correlations (Raghu et al.
    2017). From 0 to 1. NaN where :math:`r_a + r_b > n - 1`: two such subspaces of the n - 1
    dimensions that centred features of n images have meet whatever the features, and correlations
    of 1 are certain.
    """
    left, right = (_leading(side, variance) for side in (a, b))
    if left.shape[1] + right.shape[1] > len(left) - 1:
        return float("nan")
    correlations = np.linalg.svd(left.T @ right, compute_uv=False)
    return float(min(1.0, correlations.mean()))


def _leading(side: Spectrum, variance: float) -> Floats:
    share = np.cumsum(side.values) / side.values.sum()
    # All directions that there are reach 1 but for rounding.
    count = int(np.searchsorted(share, variance * (1 - 1e-12))) + 1
    return side.vectors[:, : min(count, len(share))]
