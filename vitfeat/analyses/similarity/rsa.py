"""Representational similarity analysis of two layers: whether they rank distances alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.similarity.half_samples import Halves
from vitfeat.analyses.similarity.layers import RESOLUTION, Floats, Layer

Ints = NDArray[np.int32]

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
