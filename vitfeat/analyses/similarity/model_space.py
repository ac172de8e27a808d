"""Models among one another, from the similarity of every two: a dendrogram, and a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Merge(NamedTuple):
    """Two branches that become one: members of either in the leaves' order, mean similarity."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    similarity: float


@dataclass(frozen=True)
class Dendrogram:
    """A dendrogram of n items."""

    leaves: tuple[int, ...] = ()  # items in an order in which branches do not cross
    merges: tuple[Merge, ...] = ()  # n - 1 of them; similarity never rises


def dendrogram(similarity: Floats) -> Dendrogram:
    r"""Hierarchical clustering by average linkage, with the leaves in their optimal order.

    Two branches A, B that are merged have the greatest mean similarity of all,
    :math:`\frac{1}{|A||B|} \sum_{a \\in A, b \in B} s_{ab}` (Sokal & Michener 1958, with the
    distance 1 - s). Of the orders in which branches do not cross, the one whose neighbouring
    leaves are most alike in sum (Bar-Joseph et al. 2001).

    `similarity` is symmetric (n, n), at most 1, n at least 2.
    """
    # Here only: hundreds of jobs that compare models do without.
    from scipy.cluster.hierarchy import linkage, to_tree
    from scipy.spatial.distance import squareform

    distance = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(distance, 0)
    # Rounding may leave a distance of identical items below 0.
    between = squareform(np.clip(distance, 0, None))
    root, nodes = to_tree(linkage(between, method="average", optimal_ordering=True), rd=True)
    merges = [
        Merge(tuple(node.left.pre_order()), tuple(node.right.pre_order()), 1 - float(node.dist))
        for node in nodes[len(similarity) :]
    ]
    return Dendrogram(tuple(root.pre_order()), tuple(merges))


@dataclass(frozen=True)
class Map:
    """Items in the plane."""

    places: Floats  # (n, 2)
    explained: Floats  # shares of the sum of squared distances that the two axes hold, (2,)
    stress: float  # Kruskal's stress-1 of the plane's distances: 0 where they are the given ones


def chords(cka: Floats) -> Floats:
    r"""Distances :math:`\sqrt{2 - 2 s}` between unit vectors of which s is the cosine, (n, n).

    Debiased CKA is the cosine of two U-centred Gram matrices (docs/analyses/cka.md), so that
    models are points on a sphere, and this the straight line between them.
    """
    return np.asarray(np.sqrt(np.clip(2 - 2 * cka, 0, None)))


def classical_mds(distance: Floats) -> Map:
    r"""Classical multidimensional scaling to two dimensions.

    :math:`B = -\frac{1}{2} H D^2 H` holds the inner products of centred points with these
    distances; its two leading eigenvectors times the roots of their eigenvalues are the places
    (Torgerson 1952; Gower 1966). Axes point where their largest place is positive.

    `distance` is symmetric (n, n), n at least 2.
    """
    squared = np.square(distance)
    centred = squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    places = np.zeros((len(distance), 2))
    places[:, :] = vectors[:, :2] * np.sqrt(values[:2])
    largest = np.abs(places).argmax(axis=0)
    places *= np.where(places[largest, [0, 1]] < 0, -1, 1)
    total = float(values.sum())
    explained = values[:2] / total if total else np.zeros(2)
    drawn = np.linalg.norm(places[:, None] - places, axis=-1)
    whole = float(squared.sum())
    stress = np.sqrt(np.square(drawn - distance).sum() / whole) if whole else 0.0
    return Map(places, explained, float(stress))
