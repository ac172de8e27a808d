"""A figure of some pairs of a store, with the keypoints that two of its layers find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitfeat.analyses.keypoints.compute import hits
from vitfeat.analyses.keypoints.figures import MatchRow, Pair, figure, table
from vitfeat.analyses.keypoints.pairs import Task
from vitfeat.analyses.keypoints.search import Found
from vitfeat.data.index import Index
from vitfeat.data.indexed import view_of
from vitfeat.data.views import DenseView
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.store.limits import spread
from vitfeat.store.reader import FeatureStore
from vitfeat.text import plural

PAIRS = 4
"""Pairs of the figure at most, each of another category."""

LAYERS = ("middle", "last")

PREFERRED = 0.1
"""The alpha that hits are drawn for, where it is among those that are scored."""

# Of a picture's longer side; it is drawn much smaller.
_PIXELS = 512


def write_matches(
    store: FeatureStore,
    task: Task,
    layers: Sequence[Found],
    index_path: Path,
    root: Path,
    out: Path,
    *,
    alphas: Sequence[float],
    label: str = "",
) -> None:
    """Draw the first pair of some categories, spread over all of them.

    Parameters
    ----------
    store, task, layers
        The store, its points, and where every layer finds them.
    index_path, root
        The index that the store was made from, and the folder of its images.
    out
        The PNG; PDF and CSV stand beside it.
    alphas
        Those that are scored.
    label
        The model's name in the title; its id if not given.

    Raises
    ------
    DataError
        An image's file is gone or has changed.
    """
    index = Index.read(index_path)
    alpha = PREFERRED if PREFERRED in alphas else alphas[0]
    found = {one.layer: one for one in layers}
    drawn = [store.layers[at] for at in store.layer_positions(LAYERS)]
    pairs = [_pair(task, number, found, drawn, alpha, index, root) for number in _chosen(task)]
    n_pairs = len(np.unique(task.points.pair))
    dataset = store.path.parent.name
    drawing = figure(
        pairs,
        drawn,
        alpha,
        title=label or store.model,
        note=f"{dataset}, {len(pairs)} of {plural(n_pairs, 'image pair')}: keypoints of the left "
        "image, and where a layer finds them in the right one",
    )
    save_with_numbers(drawing, out, MatchRow, table(pairs, drawn))


def _chosen(task: Task) -> list[int]:
    """Choose the first pair of every category, or of some categories."""
    first: dict[str, int] = {}
    for row in task.rows:
        first.setdefault(row.category, row.pair)
    categories = sorted(first)
    return [first[categories[i]] for i in spread(min(PAIRS, len(first)), len(first))]


def _pair(
    task: Task,
    number: int,
    found: dict[int, Found],
    layers: Sequence[int],
    alpha: float,
    index: Index,
    root: Path,
) -> Pair:
    members = np.flatnonzero(task.points.pair == number)
    rows = [task.rows[i] for i in members]
    source, target = (task.images[name] for name in (rows[0].source, rows[0].target))
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
        given=task.points.source[members],
        truth=task.points.target[members],
        found={layer: found[layer].places[members] for layer in layers},
        hits={layer: hits(found[layer].places, task.points, alpha)[members] for layer in layers},
    )
