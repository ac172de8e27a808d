"""What a model's heads attend to most, against the annotated objects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.analyses.saliency.compute import Overlaps, chance_iou, joined, overlaps
from vitfeat.analyses.saliency.foreground import Foregrounds
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.data.annotations import RegionRow, read_annotations
from vitfeat.errors import AnalysisError
from vitfeat.jobs.queries import QUERIES, query_rows, usable_queries
from vitfeat.jobs.reading import index_of, rows_that_fit, slices
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)

_PIECE_BYTES = 16 * 2**20


def write_saliency(
    store_path: Path,
    index_path: Path,
    regions_path: Path,
    out: Path,
    settings: SaliencySettings,
) -> None:
    """Compare the most attended tokens of every head with the foreground; a table of ScoreRow.

    It has no rows of queries that the model lacks, and images without a foreground are left out.
    """
    store = open_store(store_path)
    index = index_of(store, index_path)
    kinds = usable_queries(store, "saliency", settings.queries)
    regions = read_annotations(regions_path, RegionRow)
    truth = Foregrounds(regions, index, store.view, store.grid, settings.masks)
    foreground = truth.of(range(len(index)))
    has_some = np.asarray(foreground.any(-1))
    rows: list[ScoreRow] = []
    for query in kinds:
        entries = np.flatnonzero(has_some[store.rows(QUERIES[query])])
        total = store[QUERIES[query]].shape[0]
        if not len(entries):
            raise AnalysisError(
                f"{store.path}: none of {plural(total, 'image')} has a token of foreground under "
                f"the masks of {regions_path}; check the dataset's annotations"
            )
        if len(entries) < total:
            logger.warning(
                f"{store.model}, {query}: {total - len(entries):,} of {plural(total, 'image')} "
                "without a token of foreground: left out"
            )
        images = store.rows(QUERIES[query])[entries]
        for position, layer in enumerate(store.layers):
            of_layer = joined(
                [
                    overlaps(attention, foreground[images[start:stop]], settings.mass)
                    for start, stop, attention in _pieces(store, query, position, entries)
                ]
            )
            row = score_rows("saliency", store, layer=layer, features=f"attn_{query}")
            rows += _table(row, of_layer, foreground[images])
    write_table(out, ScoreRow, rows)


def _pieces(
    store: FeatureStore, query: str, position: int, entries: NDArray[np.intp]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Read the attention of some entries: where each piece starts and stops among them."""
    array = store[QUERIES[query]]
    every = None if len(entries) == array.shape[0] else entries
    # Sums of what is read are float64, a few at once.
    for start, stop in slices(len(entries), rows_that_fit(array, _PIECE_BYTES)):
        yield start, stop, query_rows(store, query, position, start, stop, every)


def _table(
    row: Callable[..., ScoreRow], overlap: Overlaps, foreground: NDArray[np.bool_]
) -> Iterator[ScoreRow]:
    n, tokens = foreground.shape
    best = overlap.best_head
    by_chance = chance_iou(overlap.n_kept[:, best], foreground.sum(-1), tokens)
    values = [
        ("best_head", "iou", "", overlap.heads[:, best]),
        ("merged", "iou", "", overlap.merged),
        ("merged_paper", "iou", "", overlap.merged_paper),
        ("best_per_image", "iou", "", overlap.best_per_image),
        *(("head", "iou", str(h), overlap.heads[:, h]) for h in range(overlap.heads.shape[1])),
        ("best_head", "iou_chance", "", by_chance),
        ("", "iou_all", "", foreground.mean(-1)),
    ]
    for variant, score, group, images in values:
        yield row(variant=variant, score=score, group=group, n=n, value=float(images.mean()))
