"""The figure of some queries and their first results, with the pictures of a dataset."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.retrieval import SCORING
from vitfeat.analyses.retrieval import compute as retrieval
from vitfeat.analyses.retrieval.figures import Result, Search, ranking_figure
from vitfeat.analyses.retrieval.job import Truth, ranked, read_truth
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.indexed import view_of
from vitfeat.data.views import DenseView
from vitfeat.jobs.features import ARRAYS, has_features, named
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.reading import index_of, one_position
from vitfeat.store.limits import spread
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.text import plural

logger = logging.getLogger(__name__)

# Pixels of a picture's longer side, of which a figure shows fewer.
_SIDE = 256


class RankingRow(NamedTuple):
    """An image that a query finds, as the figure shows it; ``rank`` counts from 1, with junk.

    ``grade`` is ``easy``, ``hard``, ``junk``, or ``negative``.
    """

    model: str
    dataset: str
    layer: int
    features: str
    query: str
    rank: int
    image_id: str
    grade: str
    similarity: float


def write_ranking(
    store_path: Path,
    relevance_path: Path,
    index_path: Path,
    root: Path,
    out: Path,
    settings: RetrievalSettings,
    *,
    layer: str | int = "last",
    queries: int = 6,
    results: int = 8,
    label: str = "",
) -> None:
    """Draw some queries of a store, spread over the table's, and the images that they find first.

    The first of the descriptors is shown; the mean of the spatial tokens where there is no CLS
    token.
    """
    store = open_store(store_path)
    index = index_of(store, index_path)
    truth = read_truth(store, relevance_path)
    kind, final_norm = settings.features[0], settings.final_norm
    if not store.model_has(ARRAYS[kind]):
        logger.warning(f"{store.model} has no CLS token: the mean of the spatial tokens instead")
        kind = "mean"
    has_features([store], kind, "retrieval")
    position = one_position(store, layer)
    chosen = np.array(spread(min(queries, len(truth.queries)), len(truth.queries)), dtype=np.intp)
    similar = ranked(store, truth, kind, position, final_norm=final_norm, queries=chosen)
    name = named(kind, final_norm)
    searches, rows = [], []
    for query, row in zip(chosen, similar, strict=True):
        best = retrieval.ranking(row)[:results]
        grades = [_grade(truth, int(query), int(place)) for place in best]
        searches.append(_search(store, truth, index, root, int(query), row, best, grades))
        rows += [
            RankingRow(
                model=store.model,
                dataset=store_path.parent.name,
                layer=store.layers[position],
                features=name,
                query=store.image_ids[truth.queries[query]],
                rank=rank,
                image_id=store.image_ids[truth.database[place]],
                grade=grade or "negative",
                similarity=float(row[place]),
            )
            for rank, (place, grade) in enumerate(zip(best, grades, strict=True), 1)
        ]
    figure = ranking_figure(
        searches,
        title=f"{SCORING.title}: {label or store.model}",
        note=f"{store_path.parent.name}, layer {store.layers[position]}, "
        f"{SCORING.kinds[name]}, {len(chosen)} of "
        f"{plural(len(truth.queries), 'query image')}, "
        f"{plural(len(truth.database), 'database image')}",
    )
    save_with_numbers(figure, out, RankingRow, rows)


def _grade(truth: Truth, query: int, place: int) -> str:
    return next((g for g, places in truth.graded[query].items() if place in places), "")


def _search(
    store: FeatureStore,
    truth: Truth,
    index: Index,
    root: Path,
    query: int,
    similarity: NDArray[np.float32],
    best: NDArray[np.int64],
    grades: list[str],
) -> Search:
    row = int(truth.queries[query])
    box = index.crop[row]
    width, height = int(index.width[row]), int(index.height[row])
    scores = retrieval.evaluate([similarity], [truth.graded[query]], [])["medium"]
    counts = len(scores.queries) > 0
    return Search(
        name=printable(PurePosixPath(store.image_ids[row]).stem),
        picture=_picture(index, row, root),
        box=box and (box[0] / width, box[1] / height, box[2] / width, box[3] / height),
        average_precision=float(scores.average_precision[0]) if counts else None,
        results=[
            Result(_picture(index, int(truth.database[place]), root), grade)
            for place, grade in zip(best, grades, strict=True)
        ],
    )


def _picture(index: Index, row: int, root: Path) -> NDArray[np.uint8]:
    """Read the whole of an image, whatever part of it the model saw, made smaller where large."""
    image = index.row(row)._replace(crop=None)
    side = min(_SIDE, max(image.width, image.height))
    return view_of(image, root, DenseView("long", side, (1, 1)))
