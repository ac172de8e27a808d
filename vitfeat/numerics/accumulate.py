"""Means over images that arrive in batches, of all images and of every class.

Sums and counts are kept, in float64 whatever comes in, so that neither the size nor the order of
batches changes a mean by more than float64's rounding, and parts made apart can be merged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class StreamingMeans:
    """Means over images of arrays by name.

    NaN says that a value does not exist for an image, such as a mean over no rows: it is left out
    of that entry's mean, and :attr:`counts` tells how many images are in.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Floats] = {}
        # A number, or one for each entry where some image lacked one: they broadcast.
        self._counts: dict[str, Counts] = {}

    @property
    def counts(self) -> dict[str, Counts]:
        """Number of images in each entry of each mean, shaped like it."""
        return {
            name: np.broadcast_to(self._counts[name], total.shape).copy()
            for name, total in self._sums.items()
        }

    def update(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Take in a batch; it is not changed.

        Parameters
        ----------
        values
            By name, (image, ...), of any float or integer type, the same images in each. Names and
            shapes after the first dimension are those of the first batch.

        Raises
        ------
        AnalysisError
            Other names, shapes or numbers of images, or infinite values. Nothing is taken in then.
        """
        if len({len(v) for v in values.values()}) > 1:
            sizes = ", ".join(f"{name} {len(v)}" for name, v in values.items())
            raise AnalysisError(f"a batch has unlike numbers of images ({sizes}): give the same")
        part = StreamingMeans()
        for name, batch in values.items():
            part._sums[name], part._counts[name] = _sum(name, batch)
        self.merge(part)

    def merge(self, other: StreamingMeans) -> None:
        """Take in the images of another, which is not changed.

        Raises
        ------
        AnalysisError
            The other has other names or shapes. Nothing is taken in then.
        """
        self._check(other)
        # Never in place: parts may share these arrays.
        for name, total in other._sums.items():
            if name in self._sums:
                self._sums[name] = self._sums[name] + total
                self._counts[name] = self._counts[name] + other._counts[name]
            else:
                self._sums[name], self._counts[name] = total, other._counts[name]

    def _check(self, other: StreamingMeans) -> None:
        """Raise unless the other has the same names and shapes, or one of both is empty."""
        mine, theirs = ({n: s.shape for n, s in m._sums.items()} for m in (self, other))
        if mine and theirs and mine != theirs:
            name = next(n for n in (*mine, *theirs) if mine.get(n) != theirs.get(n))
            raise AnalysisError(
                f"{name!r} has shape {theirs.get(name, 'none')} in one part and "
                f"{mine.get(name, 'none')} in another: average one model at a time"
            )

    def compute(self) -> dict[str, Floats]:
        """Return the means, float64; NaN in an entry without images.

        Raises
        ------
        AnalysisError
            There were no images.
        """
        if not self._sums:
            raise AnalysisError("a mean over no images is asked for: give at least one")
        found = {}
        for name, total in self._sums.items():
            count = self._counts[name]
            found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return found


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
        """Take in a batch; it is not changed.

        Parameters
        ----------
        values
            As in :meth:`StreamingMeans.update`.
        labels
            (image,).

        Raises
        ------
        AnalysisError
            As :meth:`StreamingMeans.update`, or not one label an image. Nothing is taken
            in then.
        """
        for name, batch in values.items():
            if labels.shape != (len(batch),):
                raise AnalysisError(
                    f"{len(batch)} images of {name!r} come with labels of shape {labels.shape}: "
                    "give one label an image"
                )
        part = ClassMeans()
        found = np.unique(labels)
        for label in found:
            # Stores are mostly sorted by class: a batch of one class need not be copied.
            rows = slice(None) if len(found) == 1 else np.flatnonzero(labels == label)
            means = part._classes.setdefault(label.item(), StreamingMeans())
            means.update({name: batch[rows] for name, batch in values.items()})
        self.merge(part)

    def merge(self, other: ClassMeans) -> None:
        """Take in the images of another, which is not changed.

        Raises
        ------
        AnalysisError
            The other has other names or shapes. Nothing is taken in then.
        """
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
        found = ClassMeans()
        found._classes = {label: m for label, m in self._classes.items() if wanted(label)}
        return found

    def compute(self) -> dict[str, Floats]:
        """Return the means of every class, (class, ...), classes as in :attr:`labels`.

        Raises
        ------
        AnalysisError
            There were no images.
        """
        if not self._classes:
            raise AnalysisError("means of classes over no images are asked for: give at least one")
        means = [self._classes[label].compute() for label in self.labels]
        return {name: np.stack([m[name] for m in means]) for name in means[0]}

    def deviation(self) -> dict[str, Floats]:
        r"""Return the standard deviation over classes of the class means, ddof 1.

        .. math:: \sqrt{\frac{1}{C - 1} \sum_c (m_c - \bar m)^2}

        with the means m of C classes and their plain mean: every class counts alike, however many
        images it has. NaN in an entry that fewer than two classes have.

        Raises
        ------
        AnalysisError
            There are fewer than two classes.
        """
        if len(self._classes) < 2:
            raise AnalysisError(
                f"a deviation over classes needs two or more, there are {len(self._classes)}: "
                "give labelled images of more classes"
            )
        return {name: _deviation(means) for name, means in self.compute().items()}


def _sum(name: str, batch: NDArray[Any]) -> tuple[Floats, Counts]:
    """Sum over images and count them, leaving out NaN."""
    with np.errstate(invalid="ignore"):  # inf - inf: infinite values are found below
        total = np.asarray(batch.sum(axis=0, dtype=np.float64))
    count = np.asarray(len(batch), dtype=np.int64)
    if not np.isfinite(total).all():
        defined = ~np.isnan(batch)
        with np.errstate(invalid="ignore"):
            total = np.asarray(batch.sum(axis=0, dtype=np.float64, where=defined))
        count = np.asarray(defined.sum(axis=0, dtype=np.int64))
        if not np.isfinite(total).all():
            raise AnalysisError(f"{name!r} has infinite values: extract the model's features anew")
    return total, count


def _deviation(means: Floats) -> Floats:
    defined = ~np.isnan(means)
    count = defined.sum(axis=0)
    centre = means.sum(axis=0, where=defined) / np.maximum(count, 1)
    squares = np.square(means - centre).sum(axis=0, where=defined)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)
