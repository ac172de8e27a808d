"""The keypoints of a store that are looked for, and where its images lie in their tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.keypoints.compute import Points, drawn_pairs, held_within, is_shown
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.data.annotations import PointRow, read_annotations
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.errors import AnalysisError
from vitfeat.jobs.reading import index_of
from vitfeat.numerics.upsampled import Box
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.text import plural

logger = logging.getLogger(__name__)


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """An image of the store.

    Attributes
    ----------
    row
        In the store and the index.
    size
        Width and height in pixels.
    box
        What its tokens show, in pixels.
    """

    row: int
    size: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class Task:
    """The points of a store that are looked for.

    Attributes
    ----------
    rows
        Those of the drawn pairs that the view shows in both images, in the table's order.
    points
        The same as arrays.
    images
        By image id.
    n_drawn
        How many points the drawn pairs have.
    """

    rows: list[PointRow]
    points: Points
    images: dict[str, Placed]
    n_drawn: int

    @property
    def sources(self) -> Floats:
        """Places that features are taken from, held within the images: (point, x and y)."""
        places = [
            held_within((row.source_x, row.source_y), self.images[row.source].size)
            for row in self.rows
        ]
        return np.array(places, dtype=np.float64).reshape(-1, 2)

    @property
    def targets(self) -> list[Placed]:
        """The target of every point."""
        return [self.images[row.target] for row in self.rows]


def open_task(
    store_path: Path,
    index_path: Path,
    points_path: Path,
    settings: KeypointSettings,
) -> tuple[FeatureStore, Task]:
    """Open a store, and read the points that are looked for.

    Parameters
    ----------
    store_path, index_path, points_path
        The store, the index that it was made from, and the dataset's table of keypoints.
    settings
        How many pairs of each category are drawn, and the seed of the drawing.

    Raises
    ------
    AnalysisError, StoreError
        The store has no spatial tokens of all images; the index or the table is of other images; or
        no point is left.
    """
    store = open_store(store_path)
    if "spatial" not in store or (store.is_limited("spatial") and not store.is_ragged):
        what = "of some images only" if "spatial" in store else "not stored"
        raise AnalysisError(
            f"{store_path}: spatial tokens {what} (it holds {store.held}), which "
            "keypoints are found by; extract the tap spatial of all images"
        )
    index = index_of(store, index_path)
    rows = read_annotations(points_path, PointRow)
    if settings.pairs is not None:
        rows = drawn_pairs(rows, settings.pairs, settings.seed)
    images = _placed(store, index, rows, points_path)
    shown = [row for row in rows if _is_shown(row, images)]
    if not shown:
        raise AnalysisError(
            f"{points_path}: {plural(len(rows), 'keypoint')}, none of which the view of "
            f"{store_path} shows in both images; take more images, or the view padded"
        )
    logger.info(
        f"{store.model}: {plural(len(shown), 'keypoint')} of "
        f"{plural(len({row.pair for row in shown}), 'pair')}, "
        f"{len({row.category for row in shown})} categories"
    )
    if left_out := len(rows) - len(shown):
        logger.warning(
            f"{store.model}: {plural(left_out, 'keypoint')} left out, beyond what the view shows "
            "of an image"
        )
    return store, Task(shown, Points.of(shown), images, len(rows))


def _placed(
    store: FeatureStore, index: Index, rows: Sequence[PointRow], path: Path
) -> dict[str, Placed]:
    numbers = {image_id: row for row, image_id in enumerate(index.image_id)}
    images: dict[str, Placed] = {}
    for name in dict.fromkeys(name for row in rows for name in (row.source, row.target)):
        if name not in numbers:
            raise AnalysisError(
                f"{path} names the image {printable(name)}, which {store.path} does not hold; make "
                "it anew (vitfeat annotations), or the store"
            )
        size = index.seen_size(numbers[name])
        images[name] = Placed(numbers[name], size, store.view.box(*size))
    return images


def _is_shown(row: PointRow, images: dict[str, Placed]) -> bool:
    return all(
        is_shown(place, images[name].size, images[name].box)
        for place, name in (
            ((row.source_x, row.source_y), row.source),
            ((row.target_x, row.target_y), row.target),
        )
    )
