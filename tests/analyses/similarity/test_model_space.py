"""Trees and maps of models, against their definitions and closed forms."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vitfeat.analyses.similarity.model_space import Dendrogram, chords, classical_mds, dendrogram


def vectors(n: int, seed: int = 0) -> np.ndarray:
    """Random unit vectors."""
    x = np.random.default_rng(seed).normal(size=(n, 4)) + 1
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def similarity(n: int, seed: int = 0) -> np.ndarray:
    """Cosines of random vectors: a matrix that CKA could be."""
    x = vectors(n, seed)
    return x @ x.T


def by_hand(s: np.ndarray) -> list[tuple[frozenset[int], frozenset[int], float]]:
    """Average linkage from its definition: all pairs of branches, all pairs of members."""
    branches = [frozenset([i]) for i in range(len(s))]
    merges = []
    while len(branches) > 1:
        _, a, b = max(
            (np.mean([s[i, j] for i in a for j in b]), a, b)
            for at, a in enumerate(branches)
            for b in branches[at + 1 :]
        )
        merges.append((a, b, float(np.mean([s[i, j] for i in a for j in b]))))
        branches = [x for x in branches if x not in (a, b)] + [a | b]
    return merges


@pytest.mark.parametrize("n", [2, 3, 8, 13])
def test_branches_merge_by_their_mean_similarity(n: int) -> None:
    s = similarity(n)
    found = dendrogram(s)
    expected = by_hand(s)
    assert len(found.merges) == n - 1
    for merge, (a, b, value) in zip(found.merges, expected, strict=True):
        assert {frozenset(merge.left), frozenset(merge.right)} == {a, b}
        assert merge.similarity == pytest.approx(value, abs=1e-12)
    similarities = [merge.similarity for merge in found.merges]
    assert similarities == sorted(similarities, reverse=True)


def allowed(found: Dendrogram, order: tuple[int, ...]) -> bool:
    """Whether no branches cross when the leaves have this order."""
    place = {leaf: at for at, leaf in enumerate(order)}
    for merge in found.merges:
        at = sorted(place[leaf] for leaf in merge.left + merge.right)
        if at[-1] - at[0] != len(at) - 1:
            return False
    return True


def test_leaves_are_in_the_best_order_without_crossings() -> None:
    s = similarity(7, seed=2)
    found = dendrogram(s)

    def neighbours(order: tuple[int, ...]) -> float:
        return sum(s[a, b] for a, b in pairwise(order))

    orders = [order for order in permutations(range(7)) if allowed(found, order)]
    assert len(orders) == 2**6
    assert found.leaves in orders
    assert neighbours(found.leaves) == pytest.approx(max(map(neighbours, orders)))
    for merge in found.merges:
        both = merge.left + merge.right
        start = found.leaves.index(both[0])
        assert found.leaves[start : start + len(both)] == both


def test_identical_items_merge_at_one() -> None:
    s = np.ones((3, 3)) + 1e-15
    assert [merge.similarity for merge in dendrogram(s).merges] == pytest.approx([1, 1])


def test_chords_are_distances_of_unit_vectors() -> None:
    x = np.random.default_rng(0).normal(size=(6, 9))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.linalg.norm(x[:, None] - x, axis=-1)
    np.testing.assert_allclose(chords(x @ x.T), expected, atol=1e-7)
    assert chords(np.array([[1 + 1e-12]])) == 0


def test_points_of_a_plane_are_found_again() -> None:
    x = np.random.default_rng(0).normal(size=(9, 2)) * [3, 1]
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    found = classical_mds(distance)
    again = np.linalg.norm(found.places[:, None] - found.places, axis=-1)
    np.testing.assert_allclose(again, distance, atol=1e-9)
    np.testing.assert_allclose(found.places.mean(axis=0), 0, atol=1e-12)
    assert found.explained.sum() == pytest.approx(1)
    assert found.explained[0] > found.explained[1]
    assert found.stress == pytest.approx(0, abs=1e-9)


def test_a_map_shows_the_principal_components() -> None:
    # Of distances between vectors; only their lengths are known to the map.
    found = classical_mds(chords(similarity(11)))
    components = PCA(n_components=2).fit(vectors(11))
    scores = components.transform(vectors(11))
    np.testing.assert_allclose(np.abs(found.places), np.abs(scores), atol=1e-9)
    np.testing.assert_allclose(found.explained, components.explained_variance_ratio_, atol=1e-9)


def test_how_faithful_a_map_is() -> None:
    # A regular simplex of n corners: all n - 1 axes alike.
    n = 6
    distance = np.ones((n, n)) - np.eye(n)
    found = classical_mds(distance)
    np.testing.assert_allclose(found.explained, 1 / (n - 1))
    drawn = [np.linalg.norm(found.places[i] - found.places[j]) for i in range(n) for j in range(i)]
    expected = np.sqrt(sum((d - 1) ** 2 for d in drawn) / len(drawn))
    assert found.stress == pytest.approx(expected)


def test_axes_point_one_way_and_no_distance_is_no_map() -> None:
    found = classical_mds(chords(similarity(9, seed=3)))
    largest = np.abs(found.places).argmax(axis=0)
    assert (found.places[largest, [0, 1]] > 0).all()
    nothing = classical_mds(np.zeros((3, 3)))
    assert not nothing.places.any()
    assert (nothing.stress, nothing.explained.tolist()) == (0, [0, 0])
    two = classical_mds(np.array([[0.0, 0.6], [0.6, 0.0]]))
    np.testing.assert_allclose(np.abs(two.places), [[0.3, 0], [0.3, 0]], atol=1e-9)
    np.testing.assert_allclose(two.explained, [1, 0], atol=1e-12)
