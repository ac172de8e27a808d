"""What is given to the functions of a notebook: checked, and as what they compute from."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitfeat.analyses.settings import Settings
from vitfeat.errors import AnalysisError
from vitfeat.text import plural

Features = NDArray[np.float32]

UNLABELLED = -1
"""Class of an image without a label, as in stores."""

logger = logging.getLogger(__name__)


class TrainTest(NamedTuple):
    """Features and classes of labelled training and test images."""

    # train, test: float32 (image, channel).
    train: Features
    # classes, truth: int64 (image,): numbers of their classes; -1 where no training image is of a
    # class.
    classes: NDArray[np.int64]
    test: Features
    truth: NDArray[np.int64]
    n_classes: int  # number of classes of the training images

    @staticmethod
    def of(
        function: str,
        train: ArrayLike,
        train_labels: ArrayLike,
        test: ArrayLike,
        test_labels: ArrayLike,
    ) -> TrainTest:
        """Check and number what is given."""
        x, names = labelled(function, ("train", train), ("train_labels", train_labels))
        y, wanted = labelled(function, ("test", test), ("test_labels", test_labels))
        check_widths(function, ("train", x), ("test", y))
        known, classes = np.unique(names, return_inverse=True)
        if not np.isin(wanted, known).any():
            raise AnalysisError(
                f"{function}: no class is in both: train_labels has {known[0]!r}, test_labels "
                f"{wanted[0]!r}; call a class the same in both"
            )
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        truth = np.where(known[place] == wanted, place, UNLABELLED)
        if strange := int((truth == UNLABELLED).sum()):
            logger.warning(
                "%s: %s of classes that no training image has: count as errors",
                *(function, plural(strange, "test image")),
            )
        return TrainTest(x, classes.astype(np.int64), y, truth.astype(np.int64), len(known))


def checked(kind: type[Settings], function: str, **given: Any) -> None:
    """Hold settings to the analysis's own."""
    kind.checked(f"{function}: ", given)


def several(given: ArrayLike) -> list[Any]:
    """Return one number or several as a list."""
    return list(np.atleast_1d(np.asarray(given)).tolist())


def numbers(function: str, name: str, given: Any) -> NDArray[Any]:
    """Return an array of numbers."""
    try:
        values = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AnalysisError(f"{function}: {name} is no array ({error})") from error
    if values.dtype.kind not in "biuf":
        raise AnalysisError(
            f"{function}: {name} is an array of {values.dtype}; needed are real numbers"
        )
    return values


def features_of(function: str, name: str, given: Any, *, flat: bool = False) -> Features:
    """Return features as float32 (image, channel), further axes flattened where asked."""
    values = numbers(function, name, given)
    # The one token of features from elsewhere.
    if values.ndim == 4 and values.shape[1:3] == (1, 1):
        values = values[:, 0, 0]
    if values.ndim < 2 or not values.size or (values.ndim > 2 and not flat):
        needed = "(image, ...)" if flat else "(image, channel)"
        raise AnalysisError(
            f"{function}: {name} is of shape {values.shape}; needed is {needed}, such as one layer "
            "of a store, store['cls'][:, -1]"
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return values.reshape(len(values), -1).astype(np.float32, copy=False)


def labelled(
    function: str, features: tuple[str, Any], labels: tuple[str, Any]
) -> tuple[Features, NDArray[Any]]:
    """Return features and classes of the images that have a label."""
    x = features_of(function, *features)
    classes = codes(function, *labels, len(x))
    kept = np.ones(len(x), dtype=bool) if classes.dtype.kind == "U" else classes != UNLABELLED
    if not kept.any():
        raise AnalysisError(f"{function}: all of {labels[0]} are {UNLABELLED}, which is no class")
    return (x, classes) if kept.all() else (x[kept], classes[kept])


def codes(function: str, name: str, given: Any, n: int) -> NDArray[Any]:
    """Return whole numbers or texts, one for each of n images or points."""
    values = np.asarray(given)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):
        values = values.astype(np.str_)
    if values.shape != (n,) or values.dtype.kind not in "biuU":
        raise AnalysisError(
            f"{function}: {name} is an array of {values.dtype}, shape {values.shape}; needed are "
            f"{n:,} whole numbers or texts"
        )
    return values if values.dtype.kind == "U" else values.astype(np.int64)


def check_widths(function: str, *arrays: tuple[str, Features]) -> None:
    """Refuse two arrays of features, by their names, of different widths."""
    (a, x), (b, y) = arrays
    if x.shape[1] != y.shape[1]:
        raise AnalysisError(
            f"{function}: {a} has {plural(x.shape[1], 'channel')}, {b} {y.shape[1]}; give features "
            "of one model and layer"
        )


def places_of(function: str, given: Iterable[int]) -> NDArray[np.int64]:
    """Return places in the database."""
    values = np.asarray(list(given))
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu"):
        raise AnalysisError(f"{function}: found places {values!r}; needed are whole numbers")
    return values.astype(np.int64)


def masks_of(name: str, given: ArrayLike) -> NDArray[np.uint8]:
    """Return masks of frames."""
    values = numbers("jf", name, given)
    whole = values.dtype.kind != "f"
    if values.ndim != 3 or not values.size or not whole or values.min() < 0 or values.max() > 255:
        raise AnalysisError(
            f"jf: {name} is an array of {values.dtype}, shape {values.shape}; needed are masks "
            "(frame, height, width) of whole numbers from 0 to 255"
        )
    return values.astype(np.uint8)
