"""What machines surely do, for estimates of what jobs need, which are rather too much."""

from __future__ import annotations

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

_DAY_MINUTES = 24 * 60


def minutes(seconds: float) -> int:
    """Return minutes for some work, threefold for safety, and ten to start; at most a day.

    Before its index is there, the size of a dataset is a guess.
    """
    return min(10 + int(3 * seconds / 60), _DAY_MINUTES)


def masks_mb(n_regions: int) -> int:
    """Return MiB for a table of regions: a mask is a text of some hundred characters."""
    return int(2048 * n_regions / 2**20)
