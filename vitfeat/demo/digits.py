"""The demo's images: scikit-learn's handwritten digits, enlarged and split once and for all.

The 1,797 digits come with scikit-learn (the test part of the UCI "Optical Recognition of
Handwritten Digits" set by Alpaydin and Kaynak, 1998, CC BY 4.0), so nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from vitfeat.errors import DataError

Split = Literal["train", "test"]

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_SIZE = 32
# The source holds counts of ink in 4x4 cells, hence values from 0 to 16.
_SOURCE_MAXIMUM = 16


def load(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one split of the digits: ``train`` has 1,198 images, ``test`` 599.

    Returns RGB images of shape (n, 32, 32, 3), grey values 0 (paper) to 255 (ink), and labels 0 to
    9 of shape (n,).
    """
    if split not in get_args(Split):
        raise DataError(f"no split {split!r} in the demo digits: use 'train' or 'test'")
    small, labels = _source()
    chosen = _positions(labels, split)
    return np.stack([_enlarge(small[i]) for i in chosen]), labels[chosen]


def write(root: Path) -> None:
    """Write both splits as ``root/{train,test}/{digit}/{index:04d}.png``.

    ``index`` is the position in scikit-learn's dataset. The bytes depend on nothing but the
    versions of Pillow and zlib.
    """
    small, labels = _source()
    try:
        for split in get_args(Split):
            for digit in range(len(CLASS_NAMES)):
                (root / split / str(digit)).mkdir(parents=True, exist_ok=True)
            for i in _positions(labels, split):
                path = root / split / str(labels[i]) / f"{i:04d}.png"
                Image.fromarray(_enlarge(small[i])).save(path, format="PNG")
    except OSError as error:
        raise DataError(
            f"cannot write the demo digits under {root}: {error}: name a writable folder"
        ) from error


def _source() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the 8x8 originals scaled to 0..255, shape ``(1797, 8, 8)``, and their labels."""
    values, labels = load_digits(return_X_y=True)
    grey = np.round(values.reshape(-1, 8, 8) * 255 / _SOURCE_MAXIMUM).astype(np.uint8)
    return grey, labels.astype(np.int64)


def _positions(labels: NDArray[np.int64], split: Split) -> list[int]:
    """List the dataset positions of a split: the second of every three of a class is test."""
    seen = [0] * len(CLASS_NAMES)
    chosen = []
    for position, label in enumerate(labels):
        is_test = seen[label] % 3 == 1
        seen[label] += 1
        if is_test == (split == "test"):
            chosen.append(position)
    return chosen


def _enlarge(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(grey).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB"))
