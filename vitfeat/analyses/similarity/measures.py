"""Measures of similarity between two layers, each from Gram matrices over the same n images.

Every measure prepares a layer once and then compares prepared layers in pairs. None changes when
the features of either side are rotated or scaled by one factor; all but ``mutual_knn`` also keep
when they are moved by a constant. docs/analyses/similarity.md has the definitions side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.cka.compute import DEGENERATE, MIN_IMAGES
from vitfeat.analyses.similarity.half_samples import Halves
from vitfeat.analyses.similarity.layers import RESOLUTION, Floats, Layer
from vitfeat.errors import AnalysisError
from vitfeat.numerics.hsic import Terms, unbiased

Ints = NDArray[np.int32]

P = TypeVar("P")


# --- Debiased linear CKA, on all images and on many halves of them at once ---


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


# --- From the eigenvectors of centred Gram matrices: orthogonal Procrustes and SVCCA ---


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


# --- Representational similarity analysis: whether layers rank distances alike ---


EQUAL_DISTANCES = 10 * RESOLUTION
"""Squared distances that differ by less, of their mean, differ by rounding."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Distances between every two images i < j, by rank.

    ``places`` is int32 (pair,), the place among the different distances, from 0; ``tied`` whether
    some distances are equal; ``scores`` (pair,) ranks, the mean one for equal distances, centred
    and scaled to norm 1.
    """

    places: Ints
    tied: bool
    scores: Floats


def prepare_rsa(layer: Layer) -> Ranks | None:
    """Prepare a layer for :func:`rsa`; None where all images are equally far apart."""
    if not layer.varies:
        return None
    diag = layer.centred.diagonal()
    above = np.triu_indices(layer.n_images, 1)
    squared = (diag[:, None] + diag - 2 * layer.centred)[above]
    if float(np.ptp(squared)) <= EQUAL_DISTANCES * float(squared.mean()):
        return None
    values, inverse = np.unique(squared, return_inverse=True)
    places, tied = inverse.astype(np.int32), len(values) < len(squared)
    return Ranks(places, tied, _scores(places, tied))


def _scores(places: Ints, tied: bool) -> Floats:
    """Mean ranks of places, centred, of norm 1."""
    if tied:
        counts = np.bincount(places)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    else:
        # The same where no place is taken twice: counting flags is much faster than sorting.
        taken = np.zeros(places.max() + 1, dtype=np.bool_)
        taken[places] = True
        ranks = np.cumsum(taken, dtype=np.int32)[places].astype(np.float64)
    ranks -= (len(places) + 1) / 2
    return np.asarray(ranks / np.sqrt(ranks @ ranks))


def rsa(a: Ranks, b: Ranks) -> float:
    r"""Representational similarity analysis: Spearman's correlation of distances.

    The correlation over all pairs of images of the ranks of their Euclidean distances,
    :math:`d_{ij}^2 = K_{ii} + K_{jj} - 2 K_{ij}`, equal ones with their mean rank (Kriegeskorte et
    al. 2008). From -1 to 1, near 0 for unrelated features. Distances or their squares give the
    same.
    """
    return float(np.clip(a.scores @ b.scores, -1, 1))


def resample_rsa(a: Sequence[Ranks], b: Sequence[Ranks], halves: Halves) -> Floats:
    """:func:`rsa` on halves of the images, ranks anew in each: (resample, layer_a, layer_b)."""
    n, m = halves.shape[1], int(halves[0].sum())
    first, second = np.triu_indices(m, 1)
    # Of images i < j the pair stands at start[i] + j, as in numpy.triu_indices(n, 1).
    start = np.arange(n) * (2 * n - 3 - np.arange(n)) // 2 - 1
    correlations = np.empty((len(halves), len(a), len(b)))
    for index, half in enumerate(halves):
        images = np.flatnonzero(half)
        pairs = start[images][first] + images[second]
        left = np.stack([_scores(layer.places[pairs], layer.tied) for layer in a])
        right = left
        if b is not a:
            right = np.stack([_scores(layer.places[pairs], layer.tied) for layer in b])
        correlations[index] = left @ right.T
    return correlations


# --- Mutual nearest neighbours: whether images have the same neighbours ---


@dataclass(frozen=True, eq=False)
class Nearest:
    """All other images from the nearest to the furthest, int32 (n, n - 1), and how many count."""

    order: Ints
    neighbours: int


def prepare_knn(layer: Layer, *, neighbours: int) -> Nearest | None:
    """Prepare a layer for :func:`mutual_knn`; None where features are constant."""
    if layer.n_images <= neighbours:
        raise AnalysisError(
            f"mutual_knn compares {neighbours} neighbours of every image, and there are "
            f"{layer.n_images - 1}: take more images or fewer neighbours"
        )
    if not layer.varies:
        return None
    raw = layer.raw
    norms = np.sqrt(np.clip(raw.diagonal(), 0, None))
    cosine = raw / np.where(norms > 0, norms, 1)
    cosine /= np.where(norms > 0, norms, 1)[:, None]
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :-1]
    return Nearest(order.astype(np.int32), neighbours)


def mutual_knn(a: Nearest, b: Nearest) -> float:
    r"""Mutual nearest-neighbour alignment.

    .. math:: \frac{1}{n} \sum_i \frac{1}{k} \lvert N_a(i) \cap N_b(i) \rvert

    with N(i) the k other images whose features have the greatest cosine with those of image i
    (Huh et al. 2024: features are L2-normalised and not centred). Of images equally near the
    earlier one counts as nearer. From 0 to 1; k / (n - 1) for unrelated features.
    """
    left, right = (_table(side.order[:, : side.neighbours]) for side in (a, b))
    return np.count_nonzero(left & right) / np.count_nonzero(left)


def _table(neighbours: Ints) -> NDArray[np.bool_]:
    """Table of images by images, true where one is a neighbour of another, (n, n)."""
    marks = np.zeros((len(neighbours), len(neighbours)), dtype=np.bool_)
    np.put_along_axis(marks, neighbours, True, axis=1)
    return marks


def resample_knn(a: Sequence[Nearest], b: Sequence[Nearest], halves: Halves) -> Floats:
    """:func:`mutual_knn` on halves of the images, neighbours anew within each half.

    Of fewer images so many fewer neighbours count that they are the same share, rounded, one at
    least: with the same number the neighbourhoods would be twice as wide.

    Returns (resample, layer_a, layer_b).
    """
    n, m = halves.shape[1], int(halves[0].sum())
    count = max(1, round(a[0].neighbours * (m - 1) / (n - 1)))
    shared = np.empty((len(halves), len(a), len(b)))
    for index, half in enumerate(halves):
        left = [_within(layer.order, half, count) for layer in a]
        right = left if b is a else [_within(layer.order, half, count) for layer in b]
        for i, j in np.ndindex(len(a), len(b)):
            shared[index, i, j] = np.count_nonzero(left[i] & right[j]) / (m * count)
    return shared


def _within(order: Ints, half: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Table of the images of a half, true at their nearest so many within the half."""
    rows = order[half]
    # Half of an image's neighbours are in the half: hardly ever are more than these needed.
    for width in (4 * count + 24, rows.shape[1]):
        near = rows[:, :width]
        inside = half[near]
        if inside.sum(axis=1).min() >= count:
            break
    inside &= np.cumsum(inside, axis=1, dtype=np.int32) <= count
    marks = np.zeros((len(rows), len(half)), dtype=np.bool_)
    marks[np.nonzero(inside)[0], near[inside]] = True
    return marks


# --- All of them ---


@dataclass(frozen=True)
class Measure(Generic[P]):
    """A measure of similarity."""

    # What a layer costs once; None where the measure does not exist for it.
    prepare: Callable[[Layer], P | None]
    compare: Callable[[P, P], float]  # similarity of two prepared layers; NaN where there is none
    # Similarity of all prepared layers of one side with all of the other on halves of the images,
    # (resample, layer_a, layer_b); None for a measure without intervals.
    resample: Callable[[Sequence[P], Sequence[P], Halves], Floats] | None
    min_images: int  # images that it needs; in each half too
    setting: float | None = None  # what it was made with, if there is a choice
    # Why two layers that have each been prepared may have no similarity: for messages.
    saturated: str = ""


NAMES = ("cka", "procrustes", "rsa", "mutual_knn", "svcca")
"""The measures, in the order of the figures."""


def measures(neighbours: int = 10, variance: float = 0.99) -> Mapping[str, Measure[Any]]:
    """Return the measures by name, in the order of :data:`NAMES`.

    :func:`mutual_knn` compares so many `neighbours` of an image, and :func:`svcca` keeps that share
    of each layer's `variance`.
    """
    return {
        "cka": Measure(prepare_cka, cka, resample_cka, MIN_IMAGES),
        "procrustes": Measure(spectrum, procrustes, None, 2),
        "rsa": Measure(prepare_rsa, rsa, resample_rsa, 3),
        "mutual_knn": Measure(
            partial(prepare_knn, neighbours=neighbours),
            mutual_knn,
            resample_knn,
            2,
            setting=neighbours,
        ),
        "svcca": Measure(
            spectrum,
            partial(svcca, variance=variance),
            None,
            3,
            setting=variance,
            saturated=f"more directions than images can tell apart hold {variance:.4g} of their "
            "variance; take more images or a smaller share",
        ),
    }
