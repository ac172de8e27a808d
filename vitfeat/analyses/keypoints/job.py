"""From a store and a table of keypoints to PCK in every layer, and a figure of some pairs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from threadpoolctl import threadpool_limits

from vitfeat.analyses.keypoints.compute import Score, chance_scores, scores
from vitfeat.analyses.keypoints.matches_job import write_matches
from vitfeat.analyses.keypoints.pairs import Task, open_task
from vitfeat.analyses.keypoints.search import Found, find_points
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.analyses.rows import ScoreRow
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import write_table


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

    Parameters
    ----------
    store_path
        A store with the tap ``spatial`` of all images.
    index_path, points_path, root
        The index that it was made from, the dataset's table of keypoints, and the folder of its
        images.
    out
        The table to write.
    figure
        The PNG of some pairs; PDF and CSV stand beside it. None for no figure.
    settings
        Which pairs, and what counts as found.
    label
        The model's name in the figure; its id if not given.
    threads
        Layers that are worked on side by side.
    max_bytes
        Bound on the tokens of images in memory.

    Raises
    ------
    AnalysisError, DataError, StoreError
        The store has no spatial tokens of all images, features are not finite; the index or the
        table is of other images; no point is left; an image of the figure is gone or has changed.
    """
    store, task = open_task(store_path, index_path, points_path, settings)
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        layers = list(
            pool.map(
                lambda position: find_points(store, task, position, max_bytes // threads),
                store.layer_positions("all"),
            )
        )
    write_table(out, ScoreRow, _table(store, task, layers, settings.alphas))
    if figure is not None:
        write_matches(
            store, task, layers, index_path, root, figure, alphas=settings.alphas, label=label
        )


def _table(
    store: FeatureStore, task: Task, layers: Sequence[Found], alphas: Sequence[float]
) -> list[ScoreRow]:
    targets = task.targets
    boxes, sizes = [one.box for one in targets], [one.size for one in targets]
    by_chance = list(chance_scores(task.points, boxes, sizes, alphas))
    outside = 1 - len(task.rows) / task.n_drawn
    rows = []
    for found in layers:
        of_layer = [
            *scores(task.points, found.places, found.tied, alphas),
            *by_chance,
            Score("", "outside", "", task.n_drawn, outside),
        ]
        rows += [
            ScoreRow(
                task="keypoints",
                model=store.model,
                dataset=store.path.parent.name,
                layer=found.layer,
                features="spatial",
                variant=one.variant,
                score=one.score,
                group=one.group,
                n=one.n,
                value=one.value,
            )
            for one in of_layer
        ]
    return rows
