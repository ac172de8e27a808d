"""Retrieval from a store: queries against the database, in every layer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.retrieval.compute import (
    GRADES,
    VARIANTS,
    Graded,
    Scores,
    evaluate,
    similarities,
)
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.data.annotations import RelevanceRow, read_annotations
from vitfeat.data.images import printable
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import has_features, image_features, named
from vitfeat.jobs.reading import slices
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)


SIMILARITY_BYTES = 2**30
"""Usual bound on the similarities in memory."""

# Of a block of descriptors and of their products with the queries, in float64.
_BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Truth:
    """The queries and the database of a store, rows of it, and what is relevant."""

    queries: NDArray[np.intp]  # (query,): rows of the store
    database: NDArray[np.intp]  # (image,): rows of the store, ascending
    # What the database images are to each query, by their places in `database`.
    graded: list[Graded]


def write_retrieval(
    store_path: Path,
    relevance_path: Path,
    out: Path,
    settings: RetrievalSettings,
    *,
    max_bytes: int = SIMILARITY_BYTES,
) -> None:
    """Score the ranking of the database in every layer of a store.

    Writes a table of ScoreRow: ``map`` and ``mp@{rank}``, means over the queries that count in a
    variant, and ``ap`` of each of them by its image id. A variant in which no query counts has no
    rows, and neither have features that a model lacks. Beyond ``max_bytes`` of similarities the
    database is read once for every group of queries.
    """
    store = open_store(store_path)
    truth = read_truth(store, relevance_path)
    _report(store, truth)
    queries = [store.image_ids[row] for row in truth.queries]
    rows: list[ScoreRow] = []
    final_norm = settings.final_norm
    for kind in settings.features:
        if not has_features([store], kind, "retrieval"):
            continue
        for position in store.layer_positions("all"):
            found = evaluate(
                ranked(store, truth, kind, position, final_norm=final_norm, max_bytes=max_bytes),
                truth.graded,
                settings.ranks,
            )
            for variant, scores in found.items():
                row = score_rows(
                    "retrieval",
                    store,
                    layer=store.layers[position],
                    features=named(kind, final_norm),
                    variant=variant,
                )
                rows += _rows(row, queries, scores, settings.ranks)
    write_table(out, ScoreRow, rows)


def read_truth(store: FeatureStore, relevance_path: Path) -> Truth:
    """Find the queries and the database of a store: its images that are no queries."""
    table = read_annotations(relevance_path, RelevanceRow)
    place = {image: row for row, image in enumerate(store.image_ids)}
    names = list(dict.fromkeys(row.query for row in table))
    if missing := [n for row in table for n in (row.query, row.image) if n and n not in place]:
        raise AnalysisError(
            f"{relevance_path} names images that {store.path} does not hold, first "
            f"{printable(missing[0])}; make it anew (vitfeat annotations), or the store"
        )
    queries = np.array([place[name] for name in names], dtype=np.intp)
    database = np.setdiff1d(np.arange(store.n_images), queries)
    if not len(queries) or not len(database):
        raise AnalysisError(
            f"{relevance_path}: {plural(len(queries), 'image')} of {store.n_images:,} are queries; "
            "retrieval needs some, and others as the database"
        )
    in_database = {store.image_ids[row]: number for number, row in enumerate(database)}
    graded = _graded(table, names, in_database, relevance_path)
    return Truth(queries, database, graded)


def _graded(
    table: Sequence[RelevanceRow], names: list[str], database: dict[str, int], path: Path
) -> list[Graded]:
    found: dict[str, dict[str, list[int]]] = {n: {grade: [] for grade in GRADES} for n in names}
    seen: set[tuple[str, str]] = set()
    for row in table:
        if not row.image and not row.grade:
            continue
        if row.grade not in GRADES or row.image not in database or (row.query, row.image) in seen:
            raise AnalysisError(
                f"{path}: {printable(row.image)} is {printable(row.grade)!r} to "
                f"{printable(row.query)}; a database image is {', '.join(GRADES)} to a query, and "
                "once: make the table anew (vitfeat annotations)"
            )
        seen.add((row.query, row.image))
        found[row.query][row.grade].append(database[row.image])
    return [
        {grade: np.array(places, dtype=np.int64) for grade, places in of_query.items()}
        for of_query in found.values()
    ]


def ranked(
    store: FeatureStore,
    truth: Truth,
    kind: str,
    position: int,
    *,
    final_norm: bool = False,
    max_bytes: int = SIMILARITY_BYTES,
    queries: NDArray[np.intp] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield every query's similarities to the database, float32 (image,), in one layer.

    ``queries`` are places among those of the truth; all if not given.
    """
    rows = truth.queries if queries is None else truth.queries[queries]
    try:
        wanted = image_features(store, kind, position, rows, final_norm=final_norm)
        size = len(truth.database)
        for start, stop in slices(len(rows), max(1, max_bytes // (4 * size))):
            some = wanted[start:stop]
            at_once = max(1, _BLOCK_BYTES // (8 * (some.shape[1] + len(some))))
            yield from similarities(
                some, _blocks(store, truth, kind, position, at_once, final_norm), size
            )
    except AnalysisError as error:
        raise AnalysisError(
            f"{store.path}, {kind}, layer {store.layers[position]}: {error}"
        ) from error


def _blocks(
    store: FeatureStore, truth: Truth, kind: str, position: int, at_once: int, final_norm: bool
) -> Iterator[NDArray[np.float32]]:
    """Yield the database's descriptors in pieces."""
    kept = np.zeros(store.n_images, dtype=bool)
    kept[truth.database] = True
    # Runs of rows are read, queries with them: entries here and there cost more.
    for start, stop in slices(store.n_images, at_once):
        used = None if stop - start == store.n_images else np.arange(start, stop)
        block = image_features(store, kind, position, used, final_norm=final_norm)
        yield block[kept[start:stop]]


def _report(store: FeatureStore, truth: Truth) -> None:
    logger.info(
        f"{store.model}: {len(truth.queries):,} queries, "
        f"{plural(len(truth.database), 'database image')}"
    )
    counts = {
        variant: sum(any(len(known[grade]) for grade in grades) for known in truth.graded)
        for variant, grades in VARIANTS.items()
    }
    if not any(counts.values()):
        raise AnalysisError(
            f"{store.path}: no query of {len(truth.queries):,} has an easy or hard image; take "
            "more images (a dataset's limit takes the first)"
        )
    for variant, count in counts.items():
        without = len(truth.queries) - count
        excluded = f", {without:,} excluded without a positive image" if without else ""
        counted = "1 query counts" if count == 1 else f"{count:,} queries count"
        logger.info(f"{store.model}, {variant}: {counted}{excluded}")


def _rows(
    row: Callable[..., ScoreRow], queries: Sequence[str], scores: Scores, at: Sequence[int]
) -> Iterator[ScoreRow]:
    """Yield the rows of a layer and variant; `queries` are image ids."""
    n = len(scores.queries)
    if not n:
        return
    yield row(score="map", n=n, value=float(scores.average_precision.mean()))
    for k, values in zip(at, scores.precision.T, strict=True):
        yield row(score=f"mp@{k}", n=n, value=float(values.mean()))
    for query, positives, value in zip(
        scores.queries, scores.positives, scores.average_precision, strict=True
    ):
        yield row(score="ap", group=queries[query], n=int(positives), value=float(value))
