"""k-means of the features of annotated regions, scored against the regions' categories."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.regions.settings import RegionSettings
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.data.annotations import RegionRow, fingerprint, read_annotations
from vitfeat.errors import AnalysisError
from vitfeat.jobs.layer_clusters import cluster_rows, clusters_of
from vitfeat.jobs.reading import rows_that_fit, slices
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore, read_rows
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)

LEVELS = ("object", "part")
"""Levels of regions, in the order of tables; each is clustered for itself."""

# What is read at once; a layer of features is put together from such pieces.
_PIECE_BYTES = 64 * 2**20


def write_regions(
    store_path: Path,
    regions_path: Path,
    out: Path,
    settings: RegionSettings,
    *,
    threads: int = 1,
    max_bytes: int | None = None,
) -> None:
    """Cluster the regions of every layer of a store and write the scores as a table of ScoreRow.

    Objects and parts are clustered apart; a level whose regions are all of one category is left
    out. A row of group ``seed=N`` is the score of one k-means, that of the empty group their mean.

    The table of regions is that which the store was extracted with. Without a number of clusters in
    the settings there are as many as categories that are present.
    """
    store = open_store(store_path)
    if "regions" not in store:
        raise AnalysisError(
            f"{store.path}: no regions in this store (it holds {store.held}); "
            "extract the tap regions"
        )
    annotated = read_annotations(regions_path, RegionRow)
    _check_table(store, annotated, regions_path)
    kept = [annotated[number] for number in store.region_numbers]
    rows: list[ScoreRow] = []
    for level in _scorable(store, annotated, kept):
        used = np.array([i for i, row in enumerate(kept) if row.level == level], dtype=np.intp)
        labels = np.array([kept[i].category for i in used], dtype=np.int64)
        which = f"{store.path}: {plural(len(used), 'region')} of the level {level}"
        n_clusters = clusters_of(labels, settings, "regions", which)
        logger.info(
            f"{store.model}, {level}: {len(np.unique(labels))} categories, {n_clusters} clusters"
        )
        rows += cluster_rows(
            score_rows("regions", store, features="regions", variant=level),
            (_layer(store, position, used) for position in range(len(store.layers))),
            store.layers,
            store["regions"].shape[-1],
            labels,
            n_clusters,
            settings,
            what=f"{store.model}, {level}",
            items="regions",
            threads=threads,
            max_bytes=max_bytes,
        )
    write_table(out, ScoreRow, rows)


def _layer(store: FeatureStore, position: int, used: NDArray[np.intp]) -> NDArray[np.float32]:
    """Read some regions' features of one layer: float32 (region, channel)."""
    array = store["regions"]
    out = np.empty((len(used), array.shape[-1]), dtype=np.float32)
    done = 0
    # Objects and parts stand mixed: runs are read and picked from, which is faster than entries.
    for start, stop in slices(array.shape[0], rows_that_fit(array, _PIECE_BYTES)):
        first, last = np.searchsorted(used, (start, stop))
        if first < last:
            piece = read_rows(store, "regions", start, stop, position)
            out[done : done + last - first] = piece[used[first:last] - start]
            done += last - first
    return out


def _check_table(store: FeatureStore, annotated: Sequence[RegionRow], path: Path) -> None:
    if fingerprint(annotated) != store.attributes["request"]["regions"]["fingerprint"]:
        raise AnalysisError(
            f"{path} holds other regions than {store.path} was extracted with: give the table of "
            "its dataset, or extract the store again"
        )


def _scorable(
    store: FeatureStore,
    annotated: Sequence[RegionRow],
    kept: Sequence[RegionRow],
) -> list[str]:
    """Return the levels that have several categories; say how many regions each has."""
    crowds_are_objects = store.attributes["request"]["regions"]["masks"] == "paper"
    found, single = [], []
    for level in LEVELS:
        of_level = [row for row in annotated if row.level == level]
        if not of_level:
            continue
        with_tokens = [row for row in kept if row.level == level]
        crowds = 0 if crowds_are_objects else sum(row.crowd for row in of_level)
        bare = len(of_level) - len(with_tokens) - crowds
        logger.warning(
            f"{store.model}, {level}: {len(with_tokens):,} of {plural(len(of_level), 'region')}; "
            f"left out are {crowds:,} as crowds and {bare:,} without a token under them"
        )
        names = {row.category: row.name for row in with_tokens}
        if len(names) > 1:
            found.append(level)
            continue
        of = ", ".join(repr(name) for name in names.values()) or "no category"
        single.append(f"{plural(len(with_tokens), 'region')} of the level {level}, of {of}")
    why = "clusters are scored against categories, and that needs two or more"
    if not found:
        raise AnalysisError(
            f"{store.path}: {'; '.join(single)}; {why}: take more images (the dataset's limit)"
        )
    for level in single:
        logger.warning(f"{store.model}: {level}: not clustered; {why}")
    return found
