"""One whole number for a similarity and an image, whose order is that of neighbours.

The upper 32 bits of an int64 are the similarity, its bits changed such that greater floats are
greater whole numbers; the lower ones count images down. The greater key is the nearer image: by
similarity, and of equal ones the image that stands first. No two keys are equal, so whatever the
order in which lists are merged, the result is the same, and partitions move one array and not two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]

EMPTY = -(2**63)
"""Below the key of any image."""

LAST = 2**32 - 1
"""Images are numbered up to here."""

# All bits of an int32 but its sign.
VALUE_BITS = 2**31 - 1


def to_keys(similarity: Any, image: Any, xp: Any = np) -> Any:
    """Return the keys of similarities (no NaN) and images, int64 of the same shape.

    `xp` is NumPy, or torch where these are tensors.
    """
    # Adding 0 makes the two zeros one.
    bits = (similarity + 0).view(xp.int32)
    # The bits of negative floats count the wrong way.
    ordered = xp.asarray(xp.where(bits < 0, bits ^ VALUE_BITS, bits), dtype=xp.int64)
    return (ordered << 32) | (LAST - image)


def images_of(keys: Keys) -> NDArray[np.int64]:
    """Return the image of each key."""
    return LAST - (keys & LAST)


def similarities_of(keys: Any, xp: Any = np) -> Any:
    """Return the similarity of each key, float32; minus infinity of an empty one."""
    ordered = xp.asarray(keys >> 32, dtype=xp.int32)
    similarity = xp.where(ordered < 0, ordered ^ VALUE_BITS, ordered).view(xp.float32)
    return xp.where(keys == EMPTY, xp.full_like(similarity, -xp.inf), similarity)
