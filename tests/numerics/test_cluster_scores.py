"""NMI, ARI and purity against loops from the definitions, scikit-learn, and counts by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from vitfeat.errors import AnalysisError
from vitfeat.numerics.cluster_scores import SCORES, ari, contingency, nmi, purity, scores, shuffled


def reference(labels: Sequence[Any], clusters: Sequence[Any]) -> dict[str, float]:
    """All scores from the definitions, by loops over images and pairs of images."""
    n = len(labels)
    both = Counter(zip(labels, clusters, strict=True))
    of_class, of_cluster = Counter(labels), Counter(clusters)
    information = sum(
        k / n * math.log((k / n) / (of_class[u] / n * of_cluster[v] / n))
        for (u, v), k in both.items()
    )
    entropies = [
        -sum(k / n * math.log(k / n) for k in counts.values()) for counts in (of_class, of_cluster)
    ]
    pairs = list(combinations(range(n), 2))
    in_class = [labels[i] == labels[j] for i, j in pairs]
    in_cluster = [clusters[i] == clusters[j] for i, j in pairs]
    together = sum(a and b for a, b in zip(in_class, in_cluster, strict=True))
    expected = sum(in_class) * sum(in_cluster) / len(pairs)
    most = (sum(in_class) + sum(in_cluster)) / 2
    right = sum(
        Counter(u for u, w in zip(labels, clusters, strict=True) if w == v).most_common(1)[0][1]
        for v in of_cluster
    )
    return {
        "nmi": information / (sum(entropies) / 2),
        "ari": (together - expected) / (most - expected),
        "purity": right / n,
    }


def draw(n: int, classes: int, clusters: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Classes of uneven size, and clusters that know something of them."""
    generator = np.random.default_rng(n + 7 * classes + 13 * clusters)
    labels = (classes * generator.random(n) ** 2).astype(np.int64)
    wrong = generator.random(n) < noise
    return labels, np.where(wrong, generator.integers(0, clusters, n), labels % clusters)


CASES = [(5, 2, 2, 0.5), (7, 3, 2, 0.3), (60, 5, 5, 0.0), (60, 5, 9, 0.4), (90, 10, 3, 1.0)]


@pytest.mark.parametrize("case", CASES)
def test_from_the_definitions(case: tuple[int, int, int, float]) -> None:
    labels, clusters = draw(*case)
    found = scores(labels, clusters)
    assert tuple(found) == SCORES
    assert found == pytest.approx(reference(labels.tolist(), clusters.tolist()), abs=1e-12)


@pytest.mark.parametrize("case", [*CASES, (5000, 50, 50, 0.5), (3000, 1000, 700, 0.9)])
def test_nmi_and_ari_are_those_of_scikit_learn(case: tuple[int, int, int, float]) -> None:
    table = contingency(*draw(*case))
    assert nmi(table) == pytest.approx(normalized_mutual_info_score(*draw(*case)), abs=1e-12)
    assert ari(table) == pytest.approx(adjusted_rand_score(*draw(*case)), abs=1e-12)


def test_purity_by_hand() -> None:
    # The example of Manning et al. 2008, figure 16.4: majorities of 5, 4 and 3 among 17.
    labels = ["x"] * 5 + ["o"] + ["x"] + ["o"] * 4 + ["d"] + ["x"] * 2 + ["d"] * 3
    clusters = [1] * 6 + [2] * 6 + [3] * 5
    assert scores(labels, clusters) == pytest.approx(
        {"purity": 12 / 17, **{k: reference(labels, clusters)[k] for k in ("nmi", "ari")}}
    )
    assert purity(contingency([0, 0, 1, 1], [5, 5, 5, 7])) == 3 / 4


@pytest.mark.parametrize(
    "names",
    [[-1, 0, 1], [-3, -2, -1], [7, -(10**12), 2**62], ["b", "a", "ä"], [1.5, -2.0, 0.0]],
)
def test_names_of_classes_and_clusters_do_not_matter(names: list[Any]) -> None:
    labels, clusters = draw(40, 3, 3, 0.4)
    truth = scores(labels, clusters)
    assert truth["purity"] < 1
    for order in permutations(names):
        named = np.array(order)[labels]
        assert scores(named, clusters) == pytest.approx(truth, abs=1e-12)
        assert scores(labels, np.array(order)[clusters]) == pytest.approx(truth, abs=1e-12)


def test_negative_labels_are_kept_apart() -> None:
    """The published code turns labels -1, 0, 1 into one class, whose purity is 1.

    Of 15 pairs 3 are of a class, 6 of a cluster and 0 of both: (0 - 18/15) / (4.5 - 18/15).
    """
    labels = np.array([-1, 0, 1, -1, 0, 1])
    assert scores(labels, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(
        {"nmi": 0.0, "ari": -4 / 11, "purity": 1 / 3}
    )


def test_inputs_are_not_touched() -> None:
    labels, clusters = draw(30, 4, 4, 0.5)
    labels -= 2
    copies = labels.copy(), clusters.copy()
    labels.flags.writeable = clusters.flags.writeable = False
    scores(labels, clusters)
    shuffled(labels, 0)
    np.testing.assert_array_equal((labels, clusters), copies)


# --- Degenerate cases ---


def test_perfect_clusters_score_one_whatever_they_are_called() -> None:
    labels = np.array([3, 3, 1, 1, 1, 2])
    assert scores(labels, -labels) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0}


def test_one_cluster_knows_nothing() -> None:
    """NMI and ARI are 0; purity is the share of the largest class."""
    assert scores([0, 0, 0, 1], [5, 5, 5, 5]) == {"nmi": 0.0, "ari": 0.0, "purity": 0.75}


def test_a_cluster_for_every_image_is_pure() -> None:
    found = scores([0, 0, 1, 1], [0, 1, 2, 3])
    # Half of the clusters' entropy, ln 4, tells the classes, ln 2.
    assert found == pytest.approx({"nmi": 2 / 3, "ari": 0.0, "purity": 1.0})


def test_one_class_in_one_cluster_agrees() -> None:
    assert scores([1, 1, 1], [0, 0, 0]) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0}
    assert scores([4], [0]) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0}
    assert scores([0, 1, 2], [2, 1, 0]) == {"nmi": 1.0, "ari": 1.0, "purity": 1.0}


@pytest.mark.parametrize("n", [2, 6, 7, 11])
def test_rounding_does_not_leave_the_range_of_nmi(n: int) -> None:
    labels, clusters = np.meshgrid(np.arange(n), np.arange(7))
    independent = scores(labels.ravel(), clusters.ravel())
    assert 0 <= independent["nmi"] < 1e-12
    assert independent["ari"] < 0
    for images in range(2, 60):
        assert nmi(contingency(np.arange(images) % n, np.arange(images) % n)) <= 1


def test_counts_of_millions_of_images_do_not_overflow() -> None:
    n = 300_000
    labels, clusters = np.arange(n) % 2, np.arange(n) // (n // 2)
    found = scores(labels, clusters)
    assert found == pytest.approx({"nmi": 0.0, "ari": 0.0, "purity": 0.5}, abs=1e-5)
    assert ari(contingency(labels, 1 - labels)) == 1.0


@pytest.mark.parametrize(
    ("labels", "clusters", "shapes"),
    [
        ([0, 1], [0], [r"\(2,\)", r"\(1,\)"]),
        ([], [], [r"\(0,\)"]),
        ([[0, 1]], [[0, 1]], [r"\(1, 2\)"]),
    ],
)
def test_other_shapes_are_one_line(labels: Any, clusters: Any, shapes: list[str]) -> None:
    with pytest.raises(AnalysisError, match="a class and a cluster for every image") as caught:
        scores(labels, clusters)
    for shape in shapes:
        assert caught.match(shape)


# --- Shuffled labels ---


def test_shuffling_keeps_classes_and_follows_its_seed() -> None:
    labels = np.repeat([-4, 0, 9], [5, 20, 40])
    found = shuffled(labels, 3)
    np.testing.assert_array_equal(np.sort(found), np.sort(labels))
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, shuffled(labels, 3))
    np.testing.assert_array_equal(shuffled(labels, (3, 1)), shuffled(labels, (3, 1)))
    for other in (4, (3, 1)):
        assert (found != shuffled(labels, other)).any()


def test_shuffled_labels_score_chance_level() -> None:
    """Chance level by its definition: the mean over many orders of the labels."""
    labels, clusters = draw(300, 6, 6, 0.2)
    generator = np.random.default_rng(1)
    many = [reference_scores(generator.permutation(labels), clusters) for _ in range(400)]
    mean, deviation = np.mean(many, axis=0), np.std(many, axis=0)
    found = [list(scores(shuffled(labels, seed), clusters).values()) for seed in range(100)]
    assert (abs(np.mean(found, axis=0) - mean) < 4 * deviation * math.sqrt(1 / 100 + 1 / 400)).all()
    # Only ARI is corrected for chance; the true labels are far above it.
    assert abs(mean[1]) < 0.01 < mean[0]
    assert (np.array(list(scores(labels, clusters).values())) > mean + 10 * deviation).all()


def reference_scores(labels: np.ndarray, clusters: np.ndarray) -> list[float]:
    """As :func:`reference`, by the libraries and a count: loops over pairs would take minutes."""
    right = sum(
        np.unique(labels[clusters == c], return_counts=True)[1].max() for c in set(clusters)
    )
    return [
        float(normalized_mutual_info_score(labels, clusters)),
        float(adjusted_rand_score(labels, clusters)),
        float(right / len(labels)),
    ]
