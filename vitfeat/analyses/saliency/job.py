"""What a model's heads attend to most, against the annotated objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.rows import TaskRow
from vitfeat.analyses.saliency.compute import Overlaps, chance_iou, joined, overlaps
from vitfeat.analyses.saliency.foreground import Foregrounds
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.data.companions import read_regions
from vitfeat.errors import AnalysisError
from vitfeat.jobs.reading import index_of, rows_that_fit, slices
from vitfeat.store.arrays import SUMMARY_GROUP
from vitfeat.store.opening import open_store
from vitfeat.store.pieces import read_rows
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import write_table
from vitfeat.text import plural

QUERIES: Mapping[str, str] = {
    "cls": f"{SUMMARY_GROUP}/prefix_query",
    "mean": f"{SUMMARY_GROUP}/spatial_query",
    "centre": "attention_centre",
}
"""Queries, and the array that their attention is in."""

_PIECE_BYTES = 16 * 2**20


def write_saliency(
    store_path: Path,
    index_path: Path,
    regions_path: Path,
    out: Path,
    settings: SaliencySettings,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> None:
    """Compare the most attended tokens of every head with the foreground; a table of TaskRow.

    Parameters
    ----------
    store_path
        A store with the taps ``attention_summary`` and ``attention_centre``, as queries need them.
    index_path, regions_path
        The index that the store was made from, and the dataset's table of regions.
    out
        The table to write. It has no rows of queries that the model lacks.
    settings
        Which queries, what share of a row's attention the kept tokens have, and which tokens are
        foreground (:func:`vitfeat.numerics.coverage.foreground`).
    log
        Takes lines for people: what is left out.

    Raises
    ------
    AnalysisError, DataError, StoreError
        The store lacks a query's attention, its images have grids of their own, the index or the
        table is of other images, or no image has a foreground.
    """
    store = open_store(store_path)
    index = index_of(store, index_path)
    kinds = usable_queries(store, settings.queries, log)
    truth = Foregrounds(read_regions(regions_path), index, store.view, store.grid, settings.masks)
    foreground = truth.of(range(len(index)))
    has_some = np.asarray(foreground.any(-1))
    rows: list[TaskRow] = []
    for query in kinds:
        entries = np.flatnonzero(has_some[store.rows(QUERIES[query])])
        total = store[QUERIES[query]].shape[0]
        if not len(entries):
            raise AnalysisError(
                f"{store.path}: none of {plural(total, 'image')} has a token of foreground under "
                f"the masks of {regions_path}; check the dataset's annotations"
            )
        if len(entries) < total:
            log(
                f"{store.model}, {query}: {total - len(entries):,} of {plural(total, 'image')} "
                "without a token of foreground: left out"
            )
        images = store.rows(QUERIES[query])[entries]
        for position, layer in enumerate(store.layers):
            found = joined(
                [
                    overlaps(attention, foreground[images[start:stop]], settings.mass)
                    for start, stop, attention in _pieces(store, query, position, entries)
                ]
            )
            rows += _table(store, query, layer, found, foreground[images])
    write_table(out, TaskRow, rows)


def usable_queries(
    store: FeatureStore, queries: Sequence[str], log: Callable[[str], None]
) -> list[str]:
    """Return the queries that a model has; say which it has not.

    Raises
    ------
    AnalysisError
        The store lacks the attention of one that the model has.
    """
    if store.is_ragged:
        raise AnalysisError(
            f"{store.path}: images have grids of their own, of which no attention is stored; take "
            "the view square or padded for analyses.saliency"
        )
    found = []
    for query in queries:
        if query == "cls" and not store.model_has("cls"):
            log(f"{store.model} has no CLS token: the query cls is left out")
            continue
        if QUERIES[query] not in store:
            raise AnalysisError(
                f"{store.path}: no {QUERIES[query]} in this store (it holds "
                f"{store.held}), which the query {query!r} needs; extract the "
                f"tap {QUERIES[query].partition('/')[0]}, or leave {query!r} out of "
                "analyses.saliency.queries"
            )
        found.append(query)
    return found


def query_rows(
    store: FeatureStore,
    query: str,
    position: int,
    start: int,
    stop: int,
    entries: NDArray[np.intp] | None = None,
) -> NDArray[np.float32]:
    """Read a query's attention to the keys of the grid: float32 (image, head, key).

    Parameters
    ----------
    store, query, position
        Whose, and where the layer stands in the array.
    start, stop, entries
        Which images, as :func:`vitfeat.jobs.reading.read_rows` takes them.
    """
    found = read_rows(store, QUERIES[query], start, stop, position, entries)
    if query == "cls":
        found = found[:, :, 0]
    keys: NDArray[np.float32] = found[..., found.shape[-1] - store.grid[0] * store.grid[1] :]
    return keys


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
    store: FeatureStore,
    query: str,
    layer: int,
    found: Overlaps,
    foreground: NDArray[np.bool_],
) -> Iterator[TaskRow]:
    """Return the rows of one query and layer."""
    n, tokens = foreground.shape
    best = found.best_head
    by_chance = chance_iou(found.n_kept[:, best], foreground.sum(-1), tokens)
    values = [
        ("best_head", "iou", "", found.heads[:, best]),
        ("merged", "iou", "", found.merged),
        ("merged_paper", "iou", "", found.merged_paper),
        ("best_per_image", "iou", "", found.best_per_image),
        *(("head", "iou", str(h), found.heads[:, h]) for h in range(found.heads.shape[1])),
        ("best_head", "iou_chance", "", by_chance),
        ("", "iou_all", "", foreground.mean(-1)),
    ]
    for variant, score, group, images in values:
        yield TaskRow(
            task="saliency",
            model=store.model,
            dataset=store.path.parent.name,
            layer=layer,
            features=f"attn_{query}",
            variant=variant,
            score=score,
            group=group,
            n=n,
            value=float(images.mean()),
        )
