"""Mean and standard deviation over images that arrive in batches.

Squares are summed about each batch's own mean and merged by the update of Chan, Golub & LeVeque
1983, so that a large mean takes nothing from a small deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

Parts = tuple[Counts, Floats, Floats]
"""Of each entry: number of images, their mean, sum of squared deviations from it."""


class StreamingMoments:
    """Means and standard deviations over images of arrays by name, in float64.

    NaN says that a value does not exist for an image; it is left out, and :attr:`counts` tells how
    many images are in. Neither the size nor the order of batches changes a result by more than
    float64's rounding, and parts made apart can be merged.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Parts] = {}

    def update(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Take in a batch; it is not changed.

        Parameters
        ----------
        values
            By name, (image, ...), of any float or integer type. Names and shapes after the first
            dimension are those of the first batch.

        Raises
        ------
        AnalysisError
            Other names or shapes, or infinite values. Nothing is taken in then.
        """
        part = StreamingMoments()
        part._parts = {name: _batch(name, batch) for name, batch in values.items()}
        self.merge(part)

    def merge(self, other: StreamingMoments) -> None:
        """Take in the images of another, which is not changed.

        Raises
        ------
        AnalysisError
            The other has other names or shapes. Nothing is taken in then.
        """
        if not self._parts or not other._parts:
            self._parts = dict(self._parts or other._parts)
            return
        mine, theirs = ({n: p[0].shape for n, p in m._parts.items()} for m in (self, other))
        if mine != theirs:
            name = next(n for n in (*mine, *theirs) if mine.get(n) != theirs.get(n))
            raise AnalysisError(
                f"{name!r} has shape {theirs.get(name, 'none')} in one part and "
                f"{mine.get(name, 'none')} in another: average one model at a time"
            )
        self._parts = {name: _merged(self._parts[name], other._parts[name]) for name in mine}

    @property
    def counts(self) -> dict[str, Counts]:
        """Number of images in each entry."""
        return {name: count for name, (count, _, _) in self._parts.items()}

    @property
    def means(self) -> dict[str, Floats]:
        """Means over images, NaN in an entry without any."""
        return {
            name: np.where(count > 0, mean, np.nan)
            for name, (count, mean, _) in self._parts.items()
        }

    @property
    def deviations(self) -> dict[str, Floats]:
        """Standard deviations over images, ddof 1; NaN in an entry of fewer than two."""
        return {
            name: np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)
            for name, (count, _, squares) in self._parts.items()
        }


def _batch(name: str, batch: NDArray[Any]) -> Parts:
    if np.isinf(batch).any():
        raise AnalysisError(f"{name!r} has infinite values: extract the model's features anew")
    there = ~np.isnan(batch)
    count = np.asarray(there.sum(axis=0, dtype=np.int64))
    total = batch.sum(axis=0, dtype=np.float64, where=there)
    mean = np.asarray(total / np.maximum(count, 1))
    squares = np.square(batch - mean, dtype=np.float64).sum(axis=0, where=there)
    return count, mean, np.asarray(squares)


def _merged(a: Parts, b: Parts) -> Parts:
    count = a[0] + b[0]
    weight = b[0] / np.maximum(count, 1)
    step = b[1] - a[1]
    # The mean of an entry without images is 0, and its weight too.
    return count, a[1] + weight * step, a[2] + b[2] + np.square(step) * a[0] * weight
