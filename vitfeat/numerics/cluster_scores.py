"""How well clusters agree with classes: NMI, ARI and purity, each from its definition.

All three follow from the contingency table of images by class and cluster, so names do not
matter: classes and clusters may be any whole numbers (negative, with gaps) or texts. Inputs are not
changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitfeat.errors import AnalysisError

Counts = NDArray[np.int64]

SCORES = ("nmi", "ari", "purity")
"""Names of the scores, in the order of tables."""


@dataclass(frozen=True)
class Contingency:
    """Images by class and cluster, the pairs that occur alone: many classes cost no memory."""

    pairs: Counts  # (pair,): images of a class in a cluster, each at least 1
    # pair_class, pair_cluster: (pair,): positions of the pair's class and cluster.
    pair_class: Counts
    pair_cluster: Counts
    # classes, clusters: (class,) and (cluster,): images of each.
    classes: Counts
    clusters: Counts

    @property
    def n_images(self) -> int:
        """Number of images."""
        return int(self.pairs.sum())


def contingency(labels: ArrayLike, clusters: ArrayLike) -> Contingency:
    """Count images by class and cluster, (image,) each, of whole numbers or texts."""
    label, cluster = np.asarray(labels), np.asarray(clusters)
    if label.ndim != 1 or label.shape != cluster.shape or not len(label):
        raise AnalysisError(
            "scores of clusters need a class and a cluster for every image: found classes of shape "
            f"{label.shape} and clusters of shape {cluster.shape}"
        )
    of_class, n_classes = _positions(label)
    of_cluster, n_clusters = _positions(cluster)
    codes, pairs = np.unique(of_class * n_clusters + of_cluster, return_counts=True)
    return Contingency(
        pairs=pairs,
        pair_class=codes // n_clusters,
        pair_cluster=codes % n_clusters,
        classes=np.bincount(of_class, minlength=n_classes),
        clusters=np.bincount(of_cluster, minlength=n_clusters),
    )


def _positions(names: NDArray[Any]) -> tuple[Counts, int]:
    found, positions = np.unique(names, return_inverse=True)
    return positions.astype(np.int64), len(found)


def nmi(table: Contingency) -> float:
    r"""Normalised mutual information, by the arithmetic mean of the entropies.

    :math:`I(U; V) / \tfrac12 (H(U) + H(V))` with
    :math:`I = \sum_{uv} \frac{n_{uv}}{n} \ln \frac{n \, n_{uv}}{n_u n_v}` and
    :math:`H(U) = -\sum_u \frac{n_u}{n} \ln \frac{n_u}{n}`.

    It is from 0 to 1; 1 where there is one class and one cluster. Not corrected for chance.

    References
    ----------
    A. Strehl, J. Ghosh: Cluster ensembles. JMLR 3, 2002; the arithmetic mean is scikit-learn's.
    """
    n = table.n_images
    entropies = _entropy(table.classes) + _entropy(table.clusters)
    if entropies == 0:
        return 1.0
    independent = (
        table.classes[table.pair_class].astype(np.float64) * table.clusters[table.pair_cluster]
    )
    information = float((table.pairs / n) @ np.log(n * (table.pairs / independent)))
    # Rounding may leave the range.
    return min(max(2 * information / entropies, 0.0), 1.0)


def _entropy(counts: Counts) -> float:
    share = counts / counts.sum()
    return float(-(share @ np.log(share)))


def ari(table: Contingency) -> float:
    r"""Rand index, adjusted for chance.

    With :math:`p = \sum_{uv} \binom{n_{uv}}{2}`, :math:`a = \sum_u \binom{n_u}{2}`,
    :math:`b = \sum_v \binom{n_v}{2}` and :math:`e = a b / \binom{n}{2}`, the pairs of images
    expected together by chance: :math:`(p - e) / (\tfrac12 (a + b) - e)`.

    It is at most 1; 0 is expected of clusters that know nothing of the classes. 1 where classes
    and clusters are both of one image each or both a single one.

    References
    ----------
    L. Hubert, P. Arabie: Comparing partitions. Journal of Classification 2, 1985.
    """
    # Whole numbers of Python do not overflow, and are exact.
    together, in_class, in_cluster = (
        sum(c * (c - 1) // 2 for c in counts.tolist())
        for counts in (table.pairs, table.classes, table.clusters)
    )
    n = table.n_images
    pairs = n * (n - 1) // 2
    # Numerator and denominator times twice the number of pairs.
    above = 2 * (together * pairs - in_class * in_cluster)
    range_ = (in_class + in_cluster) * pairs - 2 * in_class * in_cluster
    return above / range_ if range_ else 1.0


def purity(table: Contingency) -> float:
    r"""Share of images that are of their cluster's most frequent class.

    :math:`\frac1n \sum_v \max_u n_{uv}`.

    It is from the share of the largest class to 1. It grows with the number of clusters: of
    clusters of one image each it is 1.

    References
    ----------
    C. D. Manning, P. Raghavan, H. Schütze: Introduction to information retrieval. Cambridge
    University Press 2008, section 16.3.
    """
    most = np.zeros_like(table.clusters)
    np.maximum.at(most, table.pair_cluster, table.pairs)
    return int(most.sum()) / table.n_images


def scores(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """Return all scores by name, in the order of :data:`SCORES`; see :func:`contingency`."""
    table = contingency(labels, clusters)
    return {"nmi": nmi(table), "ari": ari(table), "purity": purity(table)}


def shuffled(labels: NDArray[Any], seed: int | Sequence[int]) -> NDArray[Any]:
    """Return the labels in a random order: classes as large as before that mean nothing.

    What clusters score against them is chance level, for this number of clusters, their sizes and
    this balance of classes.
    """
    return np.asarray(np.random.default_rng(seed).permutation(labels))
