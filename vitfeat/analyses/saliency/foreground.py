"""Which tokens of a dataset's images are foreground: those under any annotated mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.annotations import RegionRow
from vitfeat.data.images import printable
from vitfeat.data.index import Index
from vitfeat.data.regions import mask_of
from vitfeat.data.views import View
from vitfeat.errors import DataError
from vitfeat.numerics.coverage import Box, foreground

Bool = NDArray[np.bool_]


class Foregrounds:
    """The foreground of the images of an index, in the tokens of a view.

    With ``coverage`` the foreground is what at least half lies under the union of the masks that
    are no crowds. With ``paper`` it is the union of every mask's own foreground by the research
    code's way, crowds included.
    """

    def __init__(
        self,
        rows: Iterable[RegionRow],
        index: Index,
        view: View,
        grid: tuple[int, int],
        masks: str,
    ) -> None:
        self._index, self._view, self._grid, self._masks = index, view, grid, masks
        self._by_image: dict[str, list[RegionRow]] = {}
        for row in rows:
            if masks == "paper" or not row.crowd:
                self._by_image.setdefault(row.image_id, []).append(row)

    def box(self, image: int) -> Box:
        """Return the rectangle of an image that its tokens show."""
        return self._view.box(*self._index.seen_size(image))

    def mask(self, image: int) -> Bool | None:
        """Return the union of an image's masks, bool (height, width); None where it has none."""
        rows = self._rows(image)
        if not rows:
            return None
        united = mask_of(rows[0])
        for row in rows[1:]:
            united = united | mask_of(row)
        return united

    def tokens(self, image: int) -> Bool:
        """Return an image's foreground: bool (Y, X), all false where it has no masks."""
        covered = np.zeros(self._grid, dtype=np.bool_)
        if self._masks == "paper":
            for row in self._rows(image):
                covered |= foreground(mask_of(row), self.box(image), self._grid, "paper")
        elif (mask := self.mask(image)) is not None:
            covered |= foreground(mask, self.box(image), self._grid, self._masks)
        return covered

    def of(self, images: Sequence[int]) -> Bool:
        """Return the foreground of some images, their tokens row by row: bool (image, token)."""
        return np.stack([self.tokens(int(image)).ravel() for image in images])

    def _rows(self, image: int) -> list[RegionRow]:
        name = self._index.image_id[image]
        rows = self._by_image.get(name, [])
        size = int(self._index.height[image]), int(self._index.width[image])
        for row in rows:
            if (row.height, row.width) != size:
                raise DataError(
                    f"table of regions: a mask of {printable(name)} has {row.width} x {row.height} "
                    f"pixels, the image {size[1]} x {size[0]}; make the table anew (vitfeat "
                    "annotations)"
                )
        return rows
