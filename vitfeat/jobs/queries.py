"""Attention of single queries, as stores hold it: of the CLS token, the mean, the centre token."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.store.arrays import SUMMARY_GROUP
from vitfeat.store.reader import FeatureStore, read_rows

logger = logging.getLogger(__name__)

QUERIES: Mapping[str, str] = {
    "cls": f"{SUMMARY_GROUP}/prefix_query",
    "mean": f"{SUMMARY_GROUP}/spatial_query",
    "centre": "attention_centre",
}
"""Queries, and the array that their attention is in."""


def usable_queries(store: FeatureStore, analysis: str, queries: Sequence[str]) -> list[str]:
    """Return the queries that a model has, which its store must hold; say which it has not."""
    if store.is_ragged:
        raise AnalysisError(
            f"{store.path}: images have grids of their own, of which no attention is stored; take "
            f"the view square or padded for analyses.{analysis}"
        )
    usable = []
    for query in queries:
        if query == "cls" and not store.model_has("cls"):
            logger.warning(f"{store.model} has no CLS token: the query cls is left out")
            continue
        if QUERIES[query] not in store:
            raise AnalysisError(
                f"{store.path}: no {QUERIES[query]} in this store (it holds "
                f"{store.held}), which the query {query!r} needs; extract the "
                f"tap {QUERIES[query].partition('/')[0]}, or leave {query!r} out of "
                f"analyses.{analysis}.queries"
            )
        usable.append(query)
    return usable


def query_rows(
    store: FeatureStore,
    query: str,
    position: int,
    start: int,
    stop: int,
    entries: NDArray[np.intp] | None = None,
) -> NDArray[np.float32]:
    """Read a query's attention to the keys of the grid: float32 (image, head, key)."""
    attention = read_rows(store, QUERIES[query], start, stop, position, entries)
    if query == "cls":
        attention = attention[:, :, 0]
    keys: NDArray[np.float32] = attention[
        ..., attention.shape[-1] - store.grid[0] * store.grid[1] :
    ]
    return keys
