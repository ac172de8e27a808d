"""Means and standard deviations over images that arrive in batches, of all images or by class.

Everything is float64 whatever comes in, so that neither the size nor the order of batches changes a
result by more than float64's rounding, and parts made apart can be merged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

Part = tuple[NDArray[Any], ...]
"""What is kept of the images of an array; the first is how many there are, the last has its shape.

A count is a number, or one for each entry where some image lacked one: they broadcast.
"""


class Streaming(ABC):
    """Something over images of arrays by name, from batches.

    NaN says that a value does not exist for an image, such as a mean over no rows: it is left out
    of that entry, and :attr:`counts` tells how many images are in.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}

    @staticmethod
    @abstractmethod
    def _summarised(name: str, batch: NDArray[Any]) -> Part:
        """Return what is kept of a batch."""

    @staticmethod
    @abstractmethod
    def _joined(a: Part, b: Part) -> Part:
        """Return what is kept of the images of both."""

    @property
    def counts(self) -> dict[str, Counts]:
        """Number of images in each entry of each array, shaped like it."""
        return {
            name: np.broadcast_to(part[0], part[-1].shape).copy()
            for name, part in self._parts.items()
        }

    def update(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Take in a batch, (image, ...) by name, unchanged; on an error nothing is taken in.

        Names, shapes after the first dimension, and numbers of images must agree.
        """
        if len({len(v) for v in values.values()}) > 1:
            sizes = ", ".join(f"{name} {len(v)}" for name, v in values.items())
            raise AnalysisError(f"a batch has unlike numbers of images ({sizes}): give the same")
        part = type(self)()
        part._parts = {name: self._summarised(name, batch) for name, batch in values.items()}
        self.merge(part)

    def merge(self, other: Self) -> None:
        """Take in the images of another, which is not changed; on an error nothing is taken in."""
        self._check(other)
        # Never in place: parts may share these arrays.
        self._parts |= {
            name: self._joined(self._parts[name], part) if name in self._parts else part
            for name, part in other._parts.items()
        }

    def _check(self, other: Self) -> None:
        """Raise unless the other has the same names and shapes, or one of both is empty."""
        mine, theirs = ({n: p[-1].shape for n, p in m._parts.items()} for m in (self, other))
        if mine and theirs and mine != theirs:
            name = next(n for n in (*mine, *theirs) if mine.get(n) != theirs.get(n))
            raise AnalysisError(
                f"{name!r} has shape {theirs.get(name, 'none')} in one part and "
                f"{mine.get(name, 'none')} in another: average one model at a time"
            )


class StreamingMeans(Streaming):
    """Means over images of arrays by name."""

    @staticmethod
    def _summarised(name: str, batch: NDArray[Any]) -> Part:
        """Count images and sum over them, leaving out NaN."""
        with np.errstate(invalid="ignore"):  # inf - inf: infinite values are found below
            total = np.asarray(batch.sum(axis=0, dtype=np.float64))
        count = np.asarray(len(batch), dtype=np.int64)
        if not np.isfinite(total).all():
            defined = ~np.isnan(batch)
            with np.errstate(invalid="ignore"):
                total = np.asarray(batch.sum(axis=0, dtype=np.float64, where=defined))
            count = np.asarray(defined.sum(axis=0, dtype=np.int64))
            if not np.isfinite(total).all():
                raise AnalysisError(
                    f"{name!r} has infinite values: extract the model's features anew"
                )
        return count, total

    @staticmethod
    def _joined(a: Part, b: Part) -> Part:
        return a[0] + b[0], a[1] + b[1]

    def compute(self) -> dict[str, Floats]:
        """Return the means, float64; NaN in an entry without images."""
        if not self._parts:
            raise AnalysisError("a mean over no images is asked for: give at least one")
        return {
            name: np.where(count > 0, total / np.maximum(count, 1), np.nan)
            for name, (count, total) in self._parts.items()
        }


class StreamingMoments(Streaming):
    """Means and standard deviations over images of arrays by name.

    Squares are summed about each batch's own mean and merged by the update of Chan, Golub & LeVeque
    1983, so that a large mean takes nothing from a small deviation.
    """

    @staticmethod
    def _summarised(name: str, batch: NDArray[Any]) -> Part:
        """Count images, and find their mean and the sum of squared deviations from it."""
        if np.isinf(batch).any():
            raise AnalysisError(f"{name!r} has infinite values: extract the model's features anew")
        there = ~np.isnan(batch)
        count = np.asarray(there.sum(axis=0, dtype=np.int64))
        total = batch.sum(axis=0, dtype=np.float64, where=there)
        mean = np.asarray(total / np.maximum(count, 1))
        squares = np.square(batch - mean, dtype=np.float64).sum(axis=0, where=there)
        return count, mean, np.asarray(squares)

    @staticmethod
    def _joined(a: Part, b: Part) -> Part:
        count = a[0] + b[0]
        weight = b[0] / np.maximum(count, 1)
        step = b[1] - a[1]
        # The mean of an entry without images is 0, and its weight too.
        return count, a[1] + weight * step, a[2] + b[2] + np.square(step) * a[0] * weight

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


class ClassMeans:
    """Means over the images of each class, of arrays by name.

    It holds one float64 sum a class and entry. Classes need not be known before;
    labels may be any integers, or strings.
    """

    def __init__(self) -> None:
        self._classes: dict[Any, StreamingMeans] = {}

    @property
    def labels(self) -> tuple[Any, ...]:
        """Labels met so far, ascending."""
        return tuple(sorted(self._classes))

    def update(self, values: Mapping[str, NDArray[Any]], labels: NDArray[Any]) -> None:
        """Take in a batch as :meth:`Streaming.update` does, with a label an image."""
        for name, batch in values.items():
            if labels.shape != (len(batch),):
                raise AnalysisError(
                    f"{len(batch)} images of {name!r} come with labels of shape {labels.shape}: "
                    "give one label an image"
                )
        part = ClassMeans()
        present = np.unique(labels)
        for label in present:
            # Stores are mostly sorted by class: a batch of one class need not be copied.
            rows = slice(None) if len(present) == 1 else np.flatnonzero(labels == label)
            means = part._classes.setdefault(label.item(), StreamingMeans())
            means.update({name: batch[rows] for name, batch in values.items()})
        self.merge(part)

    def merge(self, other: ClassMeans) -> None:
        """Take in the images of another, which is not changed; on an error nothing is taken in."""
        if self._classes and other._classes:
            # Before anything is taken in; a class that only one of them has must fit too.
            next(iter(self._classes.values()))._check(next(iter(other._classes.values())))
        for label, means in other._classes.items():
            self._classes.setdefault(label, StreamingMeans()).merge(means)

    def total(self) -> StreamingMeans:
        """Return the means over the images of all classes together."""
        total = StreamingMeans()
        for label in self.labels:
            total.merge(self._classes[label])
        return total

    def select(self, wanted: Callable[[Any], bool]) -> ClassMeans:
        """Return the classes whose label is wanted."""
        chosen = ClassMeans()
        chosen._classes = {label: m for label, m in self._classes.items() if wanted(label)}
        return chosen

    def compute(self) -> dict[str, Floats]:
        """Return the means of every class, (class, ...), classes as in :attr:`labels`."""
        if not self._classes:
            raise AnalysisError("means of classes over no images are asked for: give at least one")
        means = [self._classes[label].compute() for label in self.labels]
        return {name: np.stack([m[name] for m in means]) for name in means[0]}

    def deviation(self) -> dict[str, Floats]:
        r"""Return the standard deviation over classes of the class means, ddof 1.

        .. math:: \sqrt{\frac{1}{C - 1} \sum_c (m_c - \bar m)^2}

        with the means m of C classes and their plain mean: every class counts alike, however many
        images it has. NaN in an entry that fewer than two classes have.
        """
        if len(self._classes) < 2:
            raise AnalysisError(
                f"a deviation over classes needs two or more, there are {len(self._classes)}: "
                "give labelled images of more classes"
            )
        moments = StreamingMoments()
        moments.update(self.compute())
        return moments.deviations
