"""k-means of layer after layer, scored against classes, as all analyses that cluster share it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import SEED
from vitfeat.analyses.settings import KMeansSettings
from vitfeat.errors import AnalysisError
from vitfeat.numerics.cluster_scores import SCORES, scores, shuffled
from vitfeat.numerics.kmeans import k_means

logger = logging.getLogger(__name__)

SHUFFLED = "_shuffled"
"""Behind the names of scores against shuffled labels."""

_THREAD_BYTES = 2 * 2**30


def clusters_of(
    labels: NDArray[np.int64], settings: KMeansSettings, analysis: str, which: str
) -> int:
    """Return how many clusters there are of `which` items: as set, or as many as classes."""
    n_clusters = settings.clusters or len(np.unique(labels))
    if len(labels) < n_clusters:
        raise AnalysisError(
            f"{which}, fewer than the {n_clusters} clusters of k-means; take more images, or fewer "
            f"clusters (analyses.{analysis}.clusters)"
        )
    return n_clusters


def cluster_rows(
    row_of: Callable[..., ScoreRow],
    layers: Iterable[NDArray[np.float32]],
    numbers: Sequence[int],
    width: int,
    labels: NDArray[np.int64],
    n_clusters: int,
    settings: KMeansSettings,
    *,
    what: str,
    items: str,
    baseline: bool = False,
    threads: int = 1,
    max_bytes: int | None = None,
) -> Iterator[ScoreRow]:
    """Cluster layers, and yield every score of a layer: the mean over seeds, then that of each.

    Parameters
    ----------
    layers, numbers, width
        Features, float32 (item, channel), which are read when they are needed; the numbers of
        their layers; how many channels they have.
    what, items
        What a warning says is clustered, and of what.
    baseline
        Whether scores against shuffled labels follow, with :data:`SHUFFLED` behind their names.
    threads, max_bytes
        How many k-means run side by side, and the bound of their features in memory, 2 GiB a
        thread if not given: as far as a single k-means keeps to it, fewer run beyond.
    """
    # Each that runs has a layer and a copy, and one more is read.
    fit = ((max_bytes or threads * _THREAD_BYTES) // (4 * len(labels) * width) - 1) // 2
    clusters = k_means(
        layers,
        n_clusters,
        n_init=settings.n_init,
        seeds=settings.seed_numbers,
        threads=max(1, min(threads, fit)),
    )
    for layer, assignments in zip(numbers, clusters, strict=True):
        least = min(len(np.unique(assignment)) for assignment in assignments)
        if least < n_clusters:
            logger.warning(
                f"{what}, layer {layer}: {least} of {n_clusters} clusters found, since no more "
                f"{items} differ"
            )
        for name in ("", SHUFFLED) if baseline else ("",):
            by_seed = {
                # Layers are clustered alike: one order for all would give all the same luck.
                seed: scores(shuffled(labels, (seed, layer)) if name else labels, assignment)
                for seed, assignment in zip(settings.seed_numbers, assignments, strict=True)
            }
            for score in SCORES:
                values = {f"{SEED}{seed}": found[score] for seed, found in by_seed.items()}
                mean = float(np.mean(list(values.values())))
                for group, value in {"": mean, **values}.items():
                    yield row_of(
                        layer=layer,
                        score=f"{score}{name}",
                        group=group,
                        n=len(labels),
                        value=value,
                    )
