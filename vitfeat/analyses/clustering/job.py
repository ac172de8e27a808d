"""k-means of a store's features, scored against the classes of its images."""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.rows import ClusteringRow
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import ARRAYS, image_features, image_rows
from vitfeat.jobs.layer_clusters import Runs, cluster_layers
from vitfeat.numerics.cluster_scores import scores, shuffled
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
    """Cluster every layer of a store and write the scores as a table of ClusteringRow.

    Parameters
    ----------
    store_path
        The store.
    out
        The table to write. It has no rows where a model lacks what is clustered.
    settings
        What is clustered, and how; the seed of the k-means and the layer decide the order of
        shuffled labels.
    threads, max_bytes
        See :class:`vitfeat.jobs.layer_clusters.Runs`.

    Raises
    ------
    AnalysisError
        When images have no labels or all the same, there are fewer of them than clusters, or the
        store lacks what is clustered though the model has it.
    """
    store = open_store(store_path)
    labelled = store.labels != -1
    _check_labels(store, labelled)
    runs = Runs(settings.n_init, settings.seeds, settings.seed, threads, max_bytes)
    rows: list[ClusteringRow] = []
    for kind in settings.features:
        if not store.model_has(ARRAYS[kind]):
            logger.warning(f"{store.model} has no CLS token: {kind} left out")
            continue
        _check_stored(store, kind)
        positions = store.layer_positions(
            settings.pattern_layers if kind == "attention_mean" else "all"
        )
        kept = image_rows(store, kind)
        used = np.flatnonzero(labelled[kept])
        labels = store.labels[kept[used]]
        n_clusters = settings.clusters or len(np.unique(labels))
        _check_images(store, kind, labels, n_clusters)
        layers = [store.layers[position] for position in positions]
        found = cluster_layers(
            (image_features(store, kind, position, used) for position in positions),
            layers,
            (len(labels), _width(store, kind)),
            n_clusters,
            runs,
            what=f"{store.model}, {kind}",
            items="images",
        )
        for layer, assignments in zip(layers, found, strict=True):
            against = {"true": [labels] * settings.seeds}
            if settings.shuffled:
                # Layers are clustered alike: one order for all would give all the same luck.
                against["shuffled"] = [shuffled(labels, (number, layer)) for number in runs.numbers]
            rows += [
                ClusteringRow(
                    model=store.model,
                    dataset=store_path.parent.name,
                    layer=layer,
                    features=kind,
                    labels=name,
                    seed=number,
                    n_images=len(labels),
                    n_clusters=n_clusters,
                    score=score,
                    value=value,
                )
                for name, some in against.items()
                for number, classes, assignment in zip(runs.numbers, some, assignments, strict=True)
                for score, value in scores(classes, assignment).items()
            ]
    write_table(out, ClusteringRow, rows)


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


def _check_images(
    store: FeatureStore, kind: str, labels: NDArray[np.int64], n_clusters: int
) -> None:
    which = f"{plural(len(labels), 'image')} with {ARRAYS[kind]} and a label"
    if len(found := np.unique(labels)) < 2:
        names = ", ".join(repr(store.classes.get(int(label), str(label))) for label in found)
        raise AnalysisError(
            f"{store.path}: {which}, of {names or 'no class'}; clusters are scored against "
            "classes, and that needs two or more: a dataset's limit takes the first images, its "
            "per_class some of each class"
        )
    if len(labels) < n_clusters:
        raise AnalysisError(
            f"{store.path}: {which}, fewer than the {n_clusters} clusters of k-means; take more "
            "images, or fewer clusters (analyses.clustering.clusters)"
        )
