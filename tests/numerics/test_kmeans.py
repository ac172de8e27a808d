"""k-means are scikit-learn's own, however many run side by side."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from vitfeat.errors import AnalysisError
from vitfeat.numerics.cluster_scores import scores
from vitfeat.numerics.kmeans import k_means


def blobs(n: int, d: int, k: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """Clusters that overlap, so that initialisations differ; float32 (n, d)."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(k, d))
    noise = spread * generator.normal(size=(n, d))
    return (centres[generator.integers(0, k, n)] + noise).astype(np.float32)


@pytest.fixture
def layers() -> list[np.ndarray]:
    return [blobs(600, d, 7, seed, spread=1.5) for seed, d in enumerate((12, 40, 3))]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n_init", [1, 4])
def test_clusters_are_those_of_scikit_learn(
    layers: list[np.ndarray], n_init: int, threads: int
) -> None:
    seeds = (0, 11)
    found = k_means(layers, 7, n_init=n_init, seeds=seeds, threads=threads)
    assert (found.shape, found.dtype) == ((3, 2, 600), np.int32)
    with threadpool_limits(1):
        for layer, assignments in zip(layers, found, strict=True):
            for seed, assignment in zip(seeds, assignments, strict=True):
                plain = KMeans(n_clusters=7, n_init=n_init, random_state=seed).fit(layer)
                np.testing.assert_array_equal(assignment, plain.labels_)


def test_seeds_differ_and_their_order_is_kept(layers: list[np.ndarray]) -> None:
    found = k_means(layers, 7, n_init=1, seeds=(5, 0, 9), threads=2)
    np.testing.assert_array_equal(found, k_means(layers, 7, n_init=1, seeds=(5, 0, 9)))
    np.testing.assert_array_equal(found[:, ::-1], k_means(layers, 7, n_init=1, seeds=(9, 0, 5)))
    assert (found[:, 0] != found[:, 1]).any(axis=1).all()


def test_clusters_far_apart_are_found() -> None:
    classes = np.repeat([-1, 3, 5], [4, 40, 15])
    x = 100.0 * classes[:, None] + np.random.default_rng(0).normal(size=(59, 6))
    (found,) = k_means([x], 3, seeds=(0, 1))
    assert [scores(classes, f) for f in found] == [{"nmi": 1.0, "ari": 1.0, "purity": 1.0}] * 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_of_any_type_are_clustered_as_float32_and_not_touched(dtype: type) -> None:
    # Fortran order: neither type nor order is what k-means works on.
    x = np.asfortranarray(blobs(200, 5, 4, seed=0).astype(dtype))
    before = x.copy()
    x.flags.writeable = False
    found = k_means([x], 4)[0, 0]
    np.testing.assert_array_equal(x, before)
    with threadpool_limits(1):
        plain = KMeans(4, n_init=10, random_state=0).fit(x.astype(np.float32, order="C"))
    np.testing.assert_array_equal(found, plain.labels_)


def test_layers_are_read_when_a_thread_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more layers are in memory than k-means run, and one more."""
    alive, most, lock = set(), [], threading.Lock()

    class Features(np.ndarray):
        def __del__(self) -> None:
            with lock:
                alive.discard(id(self))

    def read() -> Iterator[np.ndarray]:
        for seed in range(8):
            x = blobs(3000, 30, 20, seed).view(Features)
            with lock:
                alive.add(id(x))
                most.append(len(alive))
            yield x
            del x

    # What converts an array would hold another in the place of ours.
    monkeypatch.setattr("vitfeat.numerics.kmeans._checked", lambda x, n_clusters: x)
    k_means(read(), 20, n_init=2, seeds=(0, 1, 2), threads=2)
    assert len(most) == 8
    assert max(most) <= 3


def library_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def test_threads_of_libraries_are_as_they_were_before() -> None:
    x = blobs(100, 3, 2, seed=0)
    with threadpool_limits(2):
        assert library_threads() == {2}
        k_means([x] * 3, 2, threads=2)
        assert library_threads() == {2}
        with pytest.raises(AnalysisError):
            k_means([x[:1]], 2)
        assert library_threads() == {2}


@pytest.mark.parametrize("threads", [1, 2])
def test_each_k_means_has_one_thread(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    found = []

    def fit(features: np.ndarray, *_: object) -> np.ndarray:
        found.append(library_threads())
        return np.zeros(len(features), np.int32)

    monkeypatch.setattr("vitfeat.numerics.kmeans._fit", fit)
    with threadpool_limits(2):
        k_means([blobs(100, 3, 2, seed=0)] * 3, 2, threads=threads)
    assert found == [{1}] * 3


# --- Degenerate cases and errors ---


def test_equal_images_make_one_cluster_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = k_means([np.full((30, 4), 2.5, np.float16)], 5, seeds=(0, 1), threads=2)
    np.testing.assert_array_equal(found, np.zeros((1, 2, 30)))
    classes = np.arange(30) % 3
    assert scores(classes, found[0, 0]) == {"nmi": 0.0, "ari": 0.0, "purity": 1 / 3}


def test_fewer_different_images_than_clusters_are_found_apart() -> None:
    x = np.repeat(np.eye(3, 4), 10, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = k_means([x], 5)[0, 0]
    assert scores(np.repeat([0, 1, 2], 10), found)["ari"] == 1.0


def test_as_many_clusters_as_images_and_one_cluster() -> None:
    x = blobs(12, 3, 2, seed=0)
    assert len(set(k_means([x], 12)[0, 0].tolist())) == 12
    assert set(k_means([x], 1)[0, 0].tolist()) == {0}


def test_other_warnings_are_not_hidden() -> None:
    def read() -> Iterator[np.ndarray]:
        warnings.warn("slow disk", UserWarning, stacklevel=1)
        yield blobs(20, 3, 2, seed=0)

    with pytest.warns(UserWarning, match="slow disk"):
        k_means(read(), 2)


@pytest.mark.parametrize(
    ("features", "clusters", "words"),
    [
        (np.zeros((3, 2)), 4, r"4 clusters of features of shape \(3, 2\).*one image a cluster"),
        (np.zeros((3, 2)), 0, "0 clusters"),
        (np.zeros((3, 2, 2)), 2, r"\(3, 2, 2\).*needed are \(image, channel\)"),
        (np.array([[0.0], [np.nan], [1.0]]), 2, "not finite"),
        (np.array([[0.0], [np.inf], [1.0]]), 2, "not finite"),
        (np.array([[0.0], [1e30], [1.0]]), 2, "too large"),
        (np.array([[0.0], [1e300], [1.0]]), 2, "too large"),
    ],
)
def test_what_cannot_be_clustered_is_one_line(
    features: np.ndarray, clusters: int, words: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AnalysisError, match=words):
            k_means([features], clusters)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_scikit_learn_does_not_know_are_one_line(seed: int) -> None:
    with pytest.raises(AnalysisError, match=f"found seed {seed}.*0 to 4294967295"):
        k_means([blobs(20, 3, 2, seed=0)], 2, seeds=(seed,))


def test_a_reader_that_fails_stops_the_rest() -> None:
    def read() -> Iterator[np.ndarray]:
        yield from (blobs(2000, 20, 10, seed) for seed in range(2))
        raise OSError("gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        k_means(read(), 10, seeds=(0, 1, 2), threads=2)
    assert threading.active_count() == before


def test_a_k_means_that_fails_ends_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def layers() -> Iterator[np.ndarray]:
        for seed in range(20):
            read.append(seed)
            yield blobs(50, 3, 2, seed)

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("vitfeat.numerics.kmeans._fit", fail)
    with pytest.raises(MemoryError, match="no room"):
        k_means(layers(), 2, seeds=range(9))
    assert len(read) < 20
