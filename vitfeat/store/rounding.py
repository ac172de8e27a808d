"""Fewer bits of mantissa: what a codec then makes smaller, and readers need nothing for.

Bit rounding (Klöwer et al. 2021; ``BitRound`` of numcodecs): the last bits of the mantissa are
rounded away, to the nearest number and of two equally near ones to the even one, and are zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numbers that are rounded at a time: their bits stay in the cache.
_PIECE = 2**16


def largest(dtype: str, keep_bits: int | None) -> float:
    """Return the largest number of an element type that has so many bits of mantissa."""
    facts = np.finfo(dtype)
    bits = facts.nmant if keep_bits is None else keep_bits
    return float((2 - 2.0**-bits) * 2.0 ** (facts.maxexp - 1))


def check_keep_bits(dtype: str, keep_bits: int | None) -> None:
    """Refuse a number of bits that rounds nothing, or everything."""
    bits = np.finfo(dtype).nmant
    if keep_bits is not None and not 1 <= keep_bits < bits:
        raise ValueError(
            f"keep_bits: found {keep_bits}; {dtype} has {bits} bits of mantissa: "
            f"allowed are 1 to {bits - 1}, or null to keep them all"
        )


def round_mantissa(values: NDArray[Any], keep_bits: int) -> None:
    """Round contiguous floating-point numbers in place to so many bits of mantissa.

    The implicit first bit is not counted. Subnormal numbers are rounded to the same last bit as the
    smallest normal ones. What is nearer to the next power of two than to the largest number is
    infinite afterwards; NaN stays NaN.
    """
    if not values.flags.c_contiguous:
        raise ValueError("an array that is not contiguous cannot be rounded in place")
    facts = np.finfo(values.dtype)
    word = np.dtype(f"u{values.dtype.itemsize}").type
    dropped = facts.nmant - keep_bits
    half, kept = word((1 << (dropped - 1)) - 1), ~word((1 << dropped) - 1)
    infinity = np.array(np.inf, values.dtype).view(word)
    unsigned = word(np.iinfo(word).max >> 1)
    flat = values.view(word).reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        # Half a step is added, and a last bit less where the kept part is even: ties go there.
        rounded = piece >> word(dropped)
        rounded &= word(1)
        rounded += half
        rounded += piece
        rounded &= kept
        np.copyto(piece, rounded, where=(piece & unsigned) <= infinity)
