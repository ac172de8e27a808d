"""From a store and a table of keypoints to PCK in every layer, and a figure of some pairs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from vitfeat.analyses.keypoints.compute import Score, chance_scores, hits, scores
from vitfeat.analyses.keypoints.figures import MatchRow, Pair, matches_figure, table
from vitfeat.analyses.keypoints.pairs import Found, Sought, find_points, open_points
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.data.index import Index
from vitfeat.data.indexed import view_of
from vitfeat.data.views import DenseView
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.store.limits import spread
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import write_table
from vitfeat.text import plural

PAIRS = 4
"""Pairs of the figure at most, each of another category."""

LAYERS = ("middle", "last")

PREFERRED = 0.1
"""The alpha that hits are drawn for, where it is among those that are scored."""

# Of a picture's longer side; it is drawn much smaller.
_PIXELS = 512


def write_keypoints(
    store_path: Path,
    index_path: Path,
    points_path: Path,
    root: Path,
    out: Path,
    figure: Path | None,
    settings: KeypointSettings,
    *,
    label: str = "",
    threads: int = 1,
    max_bytes: int = 2**30,
) -> None:
    """Find the points in every layer of a store; write PCK as a table of ScoreRow, and a figure.

    ``threads`` layers are worked on side by side, whose tokens take ``max_bytes`` together.
    """
    store, sought = open_points(store_path, index_path, points_path, settings)
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        layers = list(
            pool.map(
                lambda position: find_points(store, sought, position, max_bytes // threads),
                store.layer_positions("all"),
            )
        )
    write_table(out, ScoreRow, _table(store, sought, layers, settings.alphas))
    if figure is not None:
        write_matches(
            store, sought, layers, index_path, root, figure, alphas=settings.alphas, label=label
        )


def _table(
    store: FeatureStore, sought: Sought, layers: Sequence[Found], alphas: Sequence[float]
) -> list[ScoreRow]:
    targets = sought.targets
    boxes, sizes = [one.box for one in targets], [one.size for one in targets]
    by_chance = list(chance_scores(sought.points, boxes, sizes, alphas))
    outside = 1 - len(sought.rows) / sought.n_drawn
    rows = []
    for found in layers:
        row = score_rows("keypoints", store, layer=found.layer, features="spatial")
        of_layer = [
            *scores(sought.points, found.places, found.tied, alphas),
            *by_chance,
            Score("", "outside", "", sought.n_drawn, outside),
        ]
        rows += [row(**one._asdict()) for one in of_layer]
    return rows


def write_matches(
    store: FeatureStore,
    sought: Sought,
    layers: Sequence[Found],
    index_path: Path,
    root: Path,
    out: Path,
    *,
    alphas: Sequence[float],
    label: str = "",
) -> None:
    """Draw the first pair of some categories, spread over all of them."""
    index = Index.read(index_path)
    alpha = PREFERRED if PREFERRED in alphas else alphas[0]
    found = {one.layer: one for one in layers}
    drawn = [store.layers[at] for at in store.layer_positions(LAYERS)]
    pairs = [_pair(sought, number, found, drawn, alpha, index, root) for number in _chosen(sought)]
    n_pairs = len(np.unique(sought.points.pair))
    dataset = store.path.parent.name
    drawing = matches_figure(
        pairs,
        drawn,
        alpha,
        title=label or store.model,
        note=f"{dataset}, {len(pairs)} of {plural(n_pairs, 'image pair')}: keypoints of the left "
        "image, and where a layer finds them in the right one",
    )
    save_with_numbers(drawing, out, MatchRow, table(pairs, drawn))


def _chosen(sought: Sought) -> list[int]:
    first: dict[str, int] = {}
    for row in sought.rows:
        first.setdefault(row.category, row.pair)
    categories = sorted(first)
    return [first[categories[i]] for i in spread(min(PAIRS, len(first)), len(first))]


def _pair(
    sought: Sought,
    number: int,
    found: dict[int, Found],
    layers: Sequence[int],
    alpha: float,
    index: Index,
    root: Path,
) -> Pair:
    members = np.flatnonzero(sought.points.pair == number)
    rows = [sought.rows[i] for i in members]
    source, target = (sought.images[name] for name in (rows[0].source, rows[0].target))
    pictures = [
        view_of(
            index.row(one.row),
            root,
            DenseView("long", min(_PIXELS, max(one.size)), (1, 1)),
        )
        for one in (source, target)
    ]
    return Pair(
        category=rows[0].category,
        source=rows[0].source,
        target=rows[0].target,
        pictures=(pictures[0], pictures[1]),
        sizes=(source.size, target.size),
        numbers=[row.point for row in rows],
        given=sought.points.source[members],
        truth=sought.points.target[members],
        found={layer: found[layer].places[members] for layer in layers},
        hits={layer: hits(found[layer].places, sought.points, alpha)[members] for layer in layers},
    )
