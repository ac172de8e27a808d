"""Keypoints of some images found in others by a store's spatial tokens, layer by layer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.keypoints.pairs import Placed, Task
from vitfeat.data.images import printable
from vitfeat.errors import AnalysisError
from vitfeat.numerics.upsampled import features_at, nearest
from vitfeat.store.pieces import image_tokens
from vitfeat.store.reader import FeatureStore

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """Where a layer finds the points.

    Attributes
    ----------
    layer
        Its number.
    places
        (point, 2): x and y in pixels of the targets.
    tied
        (point,): whether other places are as near.
    """

    layer: int
    places: Floats
    tied: NDArray[np.bool_]


def find_points(store: FeatureStore, task: Task, position: int, max_bytes: int = 2**30) -> Found:
    """Find the points of a task in one layer.

    Parameters
    ----------
    store, task
        The store, and its points.
    position
        Where the layer stands in the arrays.
    max_bytes
        Bound on the tokens of images in memory.

    Raises
    ------
    AnalysisError, StoreError
        Features are not finite, or damaged.
    """
    tokens = _Tokens(store, position, max_bytes)
    places = np.empty((len(task.rows), 2))
    tied = np.empty(len(task.rows), dtype=bool)
    sources = task.sources
    for target, of_target in _groups(task):
        image = task.images[target]
        queries: list[Floats] = []
        order: list[int] = []
        for source, members in of_target.items():
            queries.append(
                features_at(
                    tokens.of(task.images[source]), task.images[source].box, sources[members]
                )
            )
            order += members
        found = nearest(np.concatenate(queries), tokens.of(image), image.box, image.size)
        places[order], tied[order] = found.places, found.tied
    return Found(store.layers[position], places, tied)


def _groups(task: Task) -> list[tuple[str, dict[str, list[int]]]]:
    """Group the points by target and source, images of a category together.

    Each target is upsampled once for all its sources, and images that are used together are still
    in memory.
    """
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for number, row in enumerate(task.rows):
        of_target = groups.setdefault((row.category, row.target), {})
        of_target.setdefault(row.source, []).append(number)
    return [(target, groups[category, target]) for category, target in sorted(groups)]


class _Tokens:
    """The tokens of a layer, read image by image; those used last are kept.

    Parameters
    ----------
    store, position
        The store, and where the layer stands in it.
    max_bytes
        Bound on what is kept.
    """

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
