"""Retrieval from a store: queries against the database, in every layer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
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
    named,
    similarities,
)
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.analyses.rows import ScoreRow
from vitfeat.data.annotations import RelevanceRow, read_annotations
from vitfeat.data.images import printable
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import ARRAYS, image_features, image_rows
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
class Task:
    """The queries and the database of a store.

    Attributes
    ----------
    queries
        (query,): rows of the store.
    database
        (image,): rows of the store, ascending.
    graded
        What the database images are to each query, by their places in `database`.
    """

    queries: NDArray[np.intp]
    database: NDArray[np.intp]
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
    rows, and neither have features that a model lacks.

    Parameters
    ----------
    store_path
        The store.
    relevance_path
        What is relevant to which query. Images of the store that are no queries are the database.
    out
        The table to write.
    settings
        The descriptors, and the ranks of mean precision.
    max_bytes
        Bound on the similarities in memory: beyond, the database is read once for every group of
        queries.

    Raises
    ------
    AnalysisError, StoreError
        The table is of other images, or nothing is relevant to any query; the store lacks the
        features though the model has them, or the final norm; descriptors are not finite.
    """
    store = open_store(store_path)
    task = read_task(store, relevance_path)
    _report(store, task)
    rows: list[ScoreRow] = []
    final_norm = settings.final_norm
    for kind in settings.features:
        if not usable(store, kind):
            continue
        for position in store.layer_positions("all"):
            found = evaluate(
                ranked(store, task, kind, position, final_norm=final_norm, max_bytes=max_bytes),
                task.graded,
                settings.ranks,
            )
            for variant, scores in found.items():
                name = named(kind, final_norm)
                rows += _rows(store, task, name, position, variant, scores, settings.ranks)
    write_table(out, ScoreRow, rows)


def read_task(store: FeatureStore, relevance_path: Path) -> Task:
    """Find the queries and the database of a store.

    Raises
    ------
    AnalysisError
        The table is of other images than the store's, names no query, or a query or grade twice.
    """
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
    return Task(queries, database, graded)


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


def usable(store: FeatureStore, kind: str) -> bool:
    """Return whether a model has what descriptors are made of.

    Raises
    ------
    AnalysisError
        It has, but the store does not hold it of all images.
    """
    array = ARRAYS[kind]
    if not store.model_has(array):
        logger.warning(f"{store.model} has no CLS token: {kind} left out")
        return False
    if array not in store or len(image_rows(store, kind)) < store.n_images:
        what = "of some images only" if array in store else "not stored"
        raise AnalysisError(
            f"{store.path}: {array} {what} (it holds {store.held}), which "
            f"{kind!r} is made of; extract it of all images, or leave {kind!r} out of "
            "analyses.retrieval.features"
        )
    return True


def ranked(
    store: FeatureStore,
    task: Task,
    kind: str,
    position: int,
    *,
    final_norm: bool = False,
    max_bytes: int = SIMILARITY_BYTES,
    queries: NDArray[np.intp] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield every query's similarities to the database, float32 (image,), in one layer.

    Parameters
    ----------
    store, task
        The store and its task.
    kind, position, final_norm
        Descriptors, as :func:`vitfeat.jobs.features.image_features` takes them.
    max_bytes
        Bound on the similarities in memory.
    queries
        Which of the task's queries; all if not given.

    Raises
    ------
    AnalysisError, StoreError
        Descriptors are not finite, or damaged.
    """
    rows = task.queries if queries is None else task.queries[queries]
    try:
        wanted = image_features(store, kind, position, rows, final_norm=final_norm)
        size = len(task.database)
        for start, stop in slices(len(rows), max(1, max_bytes // (4 * size))):
            some = wanted[start:stop]
            at_once = max(1, _BLOCK_BYTES // (8 * (some.shape[1] + len(some))))
            yield from similarities(
                some, _blocks(store, task, kind, position, at_once, final_norm), size
            )
    except AnalysisError as error:
        raise AnalysisError(
            f"{store.path}, {kind}, layer {store.layers[position]}: {error}"
        ) from error


def _blocks(
    store: FeatureStore, task: Task, kind: str, position: int, at_once: int, final_norm: bool
) -> Iterator[NDArray[np.float32]]:
    """Yield the database's descriptors in pieces."""
    kept = np.zeros(store.n_images, dtype=bool)
    kept[task.database] = True
    # Runs of rows are read, queries with them: entries here and there cost more.
    for start, stop in slices(store.n_images, at_once):
        used = None if stop - start == store.n_images else np.arange(start, stop)
        block = image_features(store, kind, position, used, final_norm=final_norm)
        yield block[kept[start:stop]]


def _report(store: FeatureStore, task: Task) -> None:
    logger.info(
        f"{store.model}: {len(task.queries):,} queries, "
        f"{plural(len(task.database), 'database image')}"
    )
    counts = {
        variant: sum(any(len(known[grade]) for grade in grades) for known in task.graded)
        for variant, grades in VARIANTS.items()
    }
    if not any(counts.values()):
        raise AnalysisError(
            f"{store.path}: no query of {len(task.queries):,} has an easy or hard image; take more "
            "images (a dataset's limit takes the first)"
        )
    for variant, count in counts.items():
        without = len(task.queries) - count
        excluded = f", {without:,} excluded without a positive image" if without else ""
        counted = "1 query counts" if count == 1 else f"{count:,} queries count"
        logger.info(f"{store.model}, {variant}: {counted}{excluded}")


def _rows(
    store: FeatureStore,
    task: Task,
    features: str,
    position: int,
    variant: str,
    scores: Scores,
    at: Sequence[int],
) -> Iterator[ScoreRow]:
    def row(score: str, value: float, group: str, n: int) -> ScoreRow:
        return ScoreRow(
            task="retrieval",
            model=store.model,
            dataset=store.path.parent.name,
            layer=store.layers[position],
            features=features,
            variant=variant,
            score=score,
            group=group,
            n=n,
            value=value,
        )

    n = len(scores.queries)
    if not n:
        return
    yield row("map", float(scores.average_precision.mean()), "", n)
    for k, values in zip(at, scores.precision.T, strict=True):
        yield row(f"mp@{k}", float(values.mean()), "", n)
    for query, positives, value in zip(
        scores.queries, scores.positives, scores.average_precision, strict=True
    ):
        yield row("ap", float(value), store.image_ids[task.queries[query]], int(positives))
