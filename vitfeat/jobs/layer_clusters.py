"""k-means of layer after layer within a bound on memory, as all jobs that cluster share it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.numerics.kmeans import Assignment, k_means

logger = logging.getLogger(__name__)

_THREAD_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Runs:
    """How layers are clustered: ``seeds`` k-means of each, the first of which has ``seed``.

    ``max_bytes`` bounds the features in memory, 2 GiB a thread if not given, as far as a single
    k-means keeps to it: beyond, fewer than ``threads`` run side by side.
    """

    n_init: int
    seeds: int
    seed: int
    threads: int = 1
    max_bytes: int | None = None

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    def side_by_side(self, layer_bytes: int) -> int:
        """Return how many keep to the bound: each has a layer and a copy, one more is read."""
        bound = self.max_bytes or self.threads * _THREAD_BYTES
        return max(1, min(self.threads, (bound // layer_bytes - 1) // 2))


def cluster_layers(
    layers: Iterable[NDArray[np.float32]],
    numbers: Sequence[int],
    shape: tuple[int, int],
    n_clusters: int,
    runs: Runs,
    *,
    what: str,
    items: str,
) -> Assignment:
    """Cluster the features of layers, float32 (item, channel), and note where clusters are fewer.

    They are read when they are needed; ``shape`` is of one. int32 (layer, seed, item).
    """
    n_items, width = shape
    clusters = k_means(
        layers,
        n_clusters,
        n_init=runs.n_init,
        seeds=runs.numbers,
        threads=runs.side_by_side(4 * n_items * width),
    )
    for number, assignments in zip(numbers, clusters, strict=True):
        least = min(len(np.unique(assignment)) for assignment in assignments)
        if least < n_clusters:
            logger.warning(
                f"{what}, layer {number}: {least} of {n_clusters} clusters found, since no more "
                f"{items} differ"
            )
    return clusters
