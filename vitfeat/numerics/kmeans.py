"""k-means by scikit-learn, several side by side.

One k-means gains little from a second thread and often loses: its initialisation is many products
that are too small to share. So every k-means has one thread, and threads take k-means of their own.
A result then does not depend on how many threads there are either.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from vitfeat.errors import AnalysisError
from vitfeat.text import plural

Assignment = NDArray[np.int32]

#: Seeds of scikit-learn are below this.
_SEEDS = 2**32


def k_means(
    layers: Iterable[NDArray[Any]],
    n_clusters: int,
    *,
    n_init: int = 10,
    seeds: Sequence[int] = (0,),
    threads: int = 1,
) -> Assignment:
    """Cluster images by the features of each layer, once a seed: int32 (layer, seed, image).

    The clusters are those of ``KMeans(n_clusters, n_init=n_init, random_state=seed)`` of
    scikit-learn on one thread: Lloyd's algorithm from greedy k-means++ (Arthur & Vassilvitskii
    2007), the best of ``n_init`` by inertia. The best is taken even where it has not converged
    after scikit-learn's 300 iterations. Where fewer than ``n_clusters`` images differ, fewer
    clusters occur.

    Features are (image, channel) of any float type; clustered as float32 and not changed. They are
    taken when they are needed: at most ``threads`` + 1 layers are in memory, beside a copy in each
    of the ``threads`` k-means that run side by side. Their number changes no result.
    """
    if bad := [seed for seed in seeds if not 0 <= seed < _SEEDS]:
        raise AnalysisError(f"k-means: found seed {bad[0]}; seeds go from 0 to {_SEEDS - 1}")
    fits: list[list[Future[Assignment]]] = []
    with _quiet_single_threads(), ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
        try:
            for features in layers:
                x = _checked(features, n_clusters)
                fits.append([pool.submit(_fit, x, n_clusters, n_init, seed) for seed in seeds])
                # Layers are in memory while a k-means runs on them: read on only for a free thread.
                _wait_for_a_thread([fit for layer in fits for fit in layer], threads)
            return np.array([[fit.result() for fit in layer] for layer in fits], dtype=np.int32)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fit(features: NDArray[np.float32], n_clusters: int, n_init: int, seed: int) -> Assignment:
    model = KMeans(n_clusters, n_init=n_init, random_state=seed, algorithm="lloyd")
    return np.asarray(model.fit(features).labels_, dtype=np.int32)


def _checked(features: NDArray[Any], n_clusters: int) -> NDArray[np.float32]:
    if features.ndim != 2 or not 1 <= n_clusters <= len(features):
        raise AnalysisError(
            f"k-means: {plural(n_clusters, 'cluster')} of features of shape {features.shape}; "
            "needed are (image, channel), and at least one image a cluster"
        )
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(features, dtype=np.float32)
        finite = np.isfinite(np.einsum("ic,ic->i", x, x)).all()
    if not finite:
        raise AnalysisError(
            "k-means: features are not finite, or too large for their squares in float32; extract "
            "them again"
        )
    return x


def _wait_for_a_thread(fits: Sequence[Future[Assignment]], threads: int) -> None:
    """Return when none is queued any more: every k-means is done or has a thread."""
    while len(running := [fit for fit in fits if not fit.done()]) > threads:
        for fit in wait(running, return_when=FIRST_COMPLETED).done:
            fit.result()  # what fails ends the others


def _one_thread() -> None:
    # OpenMP counts threads for each thread that calls it, BLAS for the process.
    threadpool_limits(1, user_api="openmp")


@contextmanager
def _quiet_single_threads() -> Iterator[None]:
    """Give numerical libraries one thread each, and leave out that images are equal.

    Warnings are the process's, so that threads cannot keep theirs to themselves. Equal images are
    no mistake; the clusters that are found say so.
    """
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
