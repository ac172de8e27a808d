"""k-means of a store's features, scored against the classes of its images."""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.clustering.across import CLUSTERS
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import ARRAYS, image_features, image_rows
from vitfeat.jobs.layer_clusters import cluster_rows, clusters_of
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)


def write_clustering(
    store_path: Path,
    out: Path,
    settings: ClusteringSettings,
    *,
    threads: int = 1,
    max_bytes: int | None = None,
) -> None:
    """Cluster every layer of a store and write the scores as a table of ScoreRow.

    ``variant`` is ``k=`` with the number of clusters. A row of group ``seed=N`` is the score of one
    k-means, that of the empty group their mean.

    The table has no rows where a model lacks what is clustered. The seed of the k-means and the
    layer decide the order of shuffled labels.
    """
    store = open_store(store_path)
    labelled = store.labels != -1
    _check_labels(store, labelled)
    rows: list[ScoreRow] = []
    for kind in settings.features:
        if not store.model_has(ARRAYS[kind]):
            what = "CLS token" if kind == "cls" else "attention"
            logger.warning(f"{store.model} has no {what}: {kind} left out")
            continue
        _check_stored(store, kind)
        positions = store.layer_positions(
            settings.pattern_layers if kind == "attention_mean" else "all"
        )
        kept = image_rows(store, kind)
        used = np.flatnonzero(labelled[kept])
        labels = store.labels[kept[used]]
        which = f"{store.path}: {plural(len(labels), 'image')} with {ARRAYS[kind]} and a label"
        _check_classes(store, labels, which)
        n_clusters = clusters_of(labels, settings, "clustering", which)
        rows += cluster_rows(
            score_rows("clustering", store, features=kind, variant=f"{CLUSTERS}{n_clusters}"),
            (image_features(store, kind, position, used) for position in positions),
            [store.layers[position] for position in positions],
            _width(store, kind),
            labels,
            n_clusters,
            settings,
            what=f"{store.model}, {kind}",
            items="images",
            baseline=settings.shuffled,
            threads=threads,
            max_bytes=max_bytes,
        )
    write_table(out, ScoreRow, rows)


def _width(store: FeatureStore, kind: str) -> int:
    shape = store[ARRAYS[kind]].shape
    return shape[-1] if kind == "mean" else prod(shape[2:])


def _check_labels(store: FeatureStore, labelled: NDArray[np.bool_]) -> None:
    n = int(labelled.sum())
    if not n:
        raise AnalysisError(
            f"{store.path}: none of {plural(store.n_images, 'image')} has a label, and clusters "
            "are scored against classes; take a dataset with labels, or leave this one out of "
            "analyses.clustering.datasets"
        )
    if n < store.n_images:
        logger.warning(
            f"{store.model}: {store.n_images - n} of {plural(store.n_images, 'image')} without a "
            "label: left out"
        )


def _check_stored(store: FeatureStore, kind: str) -> None:
    if ARRAYS[kind] not in store:
        raise AnalysisError(
            f"{store.path}: no {ARRAYS[kind]} in this store (it holds "
            f"{store.held}), which {kind!r} is made of; extract it, or leave "
            f"{kind!r} out of analyses.clustering.features"
        )


def _check_classes(store: FeatureStore, labels: NDArray[np.int64], which: str) -> None:
    if len(found := np.unique(labels)) < 2:
        names = ", ".join(repr(store.classes.get(int(label), str(label))) for label in found)
        raise AnalysisError(
            f"{which}, of {names or 'no class'}; clusters are scored against classes, and that "
            "needs two or more: a dataset's limit takes the first images, its per_class some of "
            "each class"
        )
