"""Regions that features are pooled under: which of a dataset's, and how they weigh tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.annotations import RegionRow, fingerprint
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.regions import mask_of
from vitfeat.data.views import View
from vitfeat.errors import DataError
from vitfeat.numerics.coverage import token_weights


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a dataset's images that have tokens."""

    numbers: NDArray[np.int64]  # int64 (region,): rows of the dataset's table of regions
    starts: NDArray[np.int64]  # int64 (image + 1,): where the regions of each image start
    weights: list[NDArray[np.float32]]  # by image: float32 (region, token), each region's sum 1
    # n_crowd, n_uncovered: how many were left out as crowds, and for want of any token under them
    n_crowd: int
    n_uncovered: int
    masks: str  # how a mask weighs tokens
    fingerprint: str  # SHA-256 of the table


def load_regions(
    rows: Sequence[RegionRow],
    index: Index,
    view: View,
    grids: NDArray[np.int64],
    masks: str = "coverage",
) -> Regions:
    """Find the tokens of every region of a dataset.

    `grids`, int64 (image, 2), are rows and columns of every image's grid. With the masks
    ``coverage`` a token weighs by the share of its area under the mask, and crowds are left out;
    with ``paper`` by the mask resized as the research code does, and crowds are regions.
    """
    places = {image_id: row for row, image_id in enumerate(index.image_id)}
    numbers: list[int] = []
    counts = np.zeros(len(index), dtype=np.int64)
    weights = [np.zeros((0, int(y * x)), dtype=np.float32) for y, x in grids]
    n_crowd, before = 0, -1
    for image_id, some in groupby(enumerate(rows), key=lambda pair: pair[1].image_id):
        image = places.get(image_id, -1)
        if image <= before:
            raise DataError(
                f"the table of regions names {printable(image_id)}, which the index has not, or "
                "has elsewhere; make the table anew (vitfeat annotations)"
            )
        before = image
        box = view.box(*index.seen_size(image))
        found = []
        for number, row in some:
            if row.crowd and masks != "paper":
                n_crowd += 1
                continue
            weight = token_weights(mask_of(row), box, tuple(grids[image].tolist()), masks).ravel()
            if (total := weight.sum()) > 0:
                found.append((weight / total).astype(np.float32))
                numbers.append(number)
        if found:
            weights[image] = np.stack(found)
        counts[image] = len(found)
    if not numbers:
        raise DataError(
            f"none of {len(rows):,} annotated regions has a token of the images as the model sees "
            "them; check the dataset's annotations, or leave the tap regions out"
        )
    return Regions(
        np.array(numbers, dtype=np.int64),
        np.concatenate([[0], np.cumsum(counts)]),
        weights,
        n_crowd,
        len(rows) - n_crowd - len(numbers),
        masks,
        fingerprint(rows),
    )
