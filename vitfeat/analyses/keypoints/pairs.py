"""The keypoints of a store that are looked for, and where its layers find them."""

from __future__ import annotations

import logging
from collections import OrderedDict
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
from vitfeat.jobs.reading import check_tokens, index_of
from vitfeat.numerics.upsampled import Box, features_at, nearest_pixels
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore, image_tokens
from vitfeat.text import plural

logger = logging.getLogger(__name__)


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """An image of the store: its row, width and height, and what its tokens show, in pixels."""

    row: int
    size: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class Sought:
    """The points of a store that are looked for."""

    # Those of the drawn pairs that the view shows in both images, in the table's order.
    rows: list[PointRow]
    points: Points  # the same as arrays
    images: dict[str, Placed]  # by image id
    n_drawn: int  # how many points the drawn pairs have

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


def open_points(
    store_path: Path,
    index_path: Path,
    points_path: Path,
    settings: KeypointSettings,
) -> tuple[FeatureStore, Sought]:
    """Open a store, and read the points that are looked for.

    The log says how many, and how many are left out since the view does not show them.
    """
    store = open_store(store_path)
    check_tokens(store, "keypoints are found by")
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
    return store, Sought(shown, Points.of(shown), images, len(rows))


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


@dataclass(frozen=True)
class Found:
    """Where a layer finds the points.

    ``places`` are (point, x and y) in pixels of the targets; ``tied`` whether others are as near.
    """

    layer: int
    places: Floats
    tied: NDArray[np.bool_]


def find_points(
    store: FeatureStore, sought: Sought, position: int, max_bytes: int = 2**30
) -> Found:
    """Find the points in the layer at a position; tokens in memory take at most ``max_bytes``."""
    tokens = _Tokens(store, position, max_bytes)
    places = np.empty((len(sought.rows), 2))
    tied = np.empty(len(sought.rows), dtype=bool)
    sources = sought.sources
    for target, of_target in _groups(sought):
        image = sought.images[target]
        queries: list[Floats] = []
        order: list[int] = []
        for source, members in of_target.items():
            queries.append(
                features_at(
                    tokens.of(sought.images[source]), sought.images[source].box, sources[members]
                )
            )
            order += members
        found = nearest_pixels(np.concatenate(queries), tokens.of(image), image.box, image.size)
        places[order], tied[order] = found.places, found.tied
    return Found(store.layers[position], places, tied)


def _groups(sought: Sought) -> list[tuple[str, dict[str, list[int]]]]:
    """Group the points by target and source, images of a category together.

    Each target is upsampled once for all its sources, and images that are used together are still
    in memory.
    """
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for number, row in enumerate(sought.rows):
        of_target = groups.setdefault((row.category, row.target), {})
        of_target.setdefault(row.source, []).append(number)
    return [(target, groups[category, target]) for category, target in sorted(groups)]


class _Tokens:
    """The tokens of a layer, read image by image; those used last are kept, up to a bound."""

    def __init__(self, store: FeatureStore, position: int, max_bytes: int) -> None:
        self._store, self._position, self._max_bytes = store, position, max_bytes
        self._kept: OrderedDict[int, Floats] = OrderedDict()
        self._bytes = 0

    def of(self, image: Placed) -> Floats:
        """Return the tokens of an image: float64 (Y, X, channel)."""
        if image.row in self._kept:
            self._kept.move_to_end(image.row)
            return self._kept[image.row]
        read = image_tokens(self._store, image.row, self._position).astype(np.float64)
        if not np.isfinite(read).all():
            raise AnalysisError(
                f"{self._store.path}: layer {self._store.layers[self._position]} of "
                f"{printable(self._store.image_ids[image.row])} holds features that are not "
                "finite; extract it in float32"
            )
        self._kept[image.row] = read
        self._bytes += read.nbytes
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
        return read
