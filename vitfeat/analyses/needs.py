"""What machines surely do, for estimates of what jobs need, which are rather too much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitfeat.models.shapes import Shape

NUMPY_MB = 400
"""MiB of a Python process with NumPy."""

TORCH_MB = 2500
"""MiB of one that has torch for a GPU."""

CORE_FLOPS = 1e10
"""Floating-point operations a second of one core."""

READ_NUMBERS = 5e7
"""Numbers a second that are read from a store and summed."""

CLASS_IMAGES = 50
"""Images a class, as in ImageNet's validation set, where nobody knows the number of classes."""

ITERATIONS = 100
"""Of a k-means; few need more."""

_TO_START = 10
_DAY_MINUTES = 24 * 60


def minutes(seconds: float) -> int:
    """Return minutes for some work, threefold for safety, and ten to start; at most a day.

    Before its index is there, the size of a dataset is a guess.
    """
    return min(_TO_START + int(3 * seconds / 60), _DAY_MINUTES)


def minutes_in_turn(each: Iterable[int]) -> int:
    """Return minutes for several pieces of work in one process, of :func:`minutes` each."""
    return min(_TO_START + sum(m - _TO_START for m in each), _DAY_MINUTES)


def masks_mb(n_regions: int) -> int:
    """Return MiB for a table of regions: a mask is a text of some hundred characters."""
    return int(2048 * n_regions / 2**20)


def clustered_mb(n_items: int, width: int, threads: int) -> int:
    """Return MiB for layers that are clustered side by side, and their copies."""
    layer = 4 * n_items * width / 2**20
    # One k-means needs three layers; of several, 2 GiB a thread are the job's bound.
    return int(max(3 * layer, min((2 * threads + 1) * layer, 2048 * threads)))


def reading_seconds(shape: Shape, n_images: int, features: Sequence[str]) -> float:
    """Return seconds to read a layer's features: of means, all their tokens."""
    tokens = sum(shape.tokens if kind == "mean" else 1 for kind in features)
    return n_images * tokens * shape.width / READ_NUMBERS


def gram_memory_mb(n_images: int) -> int:
    """Return MiB for two tiles of features (2 GiB) and the matrices of a layer."""
    return NUMPY_MB + 2048 + int(5 * 8 * n_images**2 / 2**20)
