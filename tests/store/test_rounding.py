"""Bit rounding, held to numcodecs' and to the nearest numbers by exact arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numcodecs.bitround import BitRound
from numpy.typing import NDArray

from vitfeat.store.rounding import check_keep_bits, largest, round_mantissa


def _rounded(values: NDArray[Any], keep_bits: int) -> NDArray[Any]:
    values = values.copy()
    round_mantissa(values, keep_bits)
    return values


def _nearest_even(values: NDArray[Any], keep_bits: int) -> NDArray[np.float64]:
    """Round to multiples of the last kept bit's value; float64 has room for all of it."""
    facts = np.finfo(values.dtype)
    exact = values.astype(np.float64)
    exponent = np.frexp(exact)[1] - 1
    step = np.exp2(np.maximum(exponent, facts.minexp) - float(keep_bits))
    # np.rint takes the even one of two equally near.
    return np.rint(exact / step) * step


EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("keep_bits", range(1, 10))
def test_every_float16_becomes_the_nearest_number_of_so_many_bits(keep_bits: int) -> None:
    finite = EVERY_HALF[np.isfinite(EVERY_HALF)]
    expected = _nearest_even(finite, keep_bits)
    fits = np.abs(expected) <= largest("float16", keep_bits)
    found = _rounded(finite, keep_bits).astype(np.float64)
    np.testing.assert_array_equal(found[fits], expected[fits])
    # Including the sign of zeros, and of what becomes zero.
    np.testing.assert_array_equal(np.signbit(found), np.signbit(finite))
    np.testing.assert_array_equal(found[~fits], np.copysign(np.inf, expected[~fits]))
    assert (~fits).any()
    assert largest("float16", keep_bits) == found[fits].max()


@pytest.mark.parametrize("keep_bits", [1, 7, 9])
def test_float16_is_rounded_as_by_numcodecs(keep_bits: int) -> None:
    values = EVERY_HALF[~np.isnan(EVERY_HALF)]
    expected = BitRound(keep_bits).encode(values).view(np.float16)
    np.testing.assert_array_equal(
        _rounded(values, keep_bits).view(np.uint16), expected.view(np.uint16)
    )


@pytest.mark.parametrize("keep_bits", [1, 7, 15, 22])
def test_float32_is_rounded_as_by_numcodecs_and_to_the_nearest(keep_bits: int) -> None:
    generator = np.random.default_rng(0)
    # All exponents, subnormal numbers and ties too: more than a piece.
    bits = generator.integers(0, 2**32, 200_001, dtype=np.uint32)
    bits[::3] &= np.uint32(0xFFFF_FFFF << max(0, 22 - keep_bits) & 0xFFFF_FFFF)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)].reshape(-1)
    found = _rounded(values, keep_bits)
    expected = BitRound(keep_bits).encode(values).view(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    fits = np.isfinite(found)
    np.testing.assert_array_equal(
        found[fits].astype(np.float64), _nearest_even(values, keep_bits)[fits]
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_infinity_and_every_nan_stay_what_they_are(dtype: str) -> None:
    infinite = np.array([np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(_rounded(infinite, 3), infinite)
    # With one bit of mantissa at either end, and with all: a carry would make them numbers.
    word = f"u{np.dtype(dtype).itemsize}"
    first = int(infinite[:1].view(word)[0])
    last = np.iinfo(word).max >> 1
    nan = np.array([first + 1, last, np.iinfo(word).max], word).view(dtype)
    assert np.isnan(_rounded(nan, 3)).all()


def test_rounding_twice_is_rounding_once_and_any_shape_is_rounded() -> None:
    values = np.random.default_rng(1).normal(size=(3, 5, 7)).astype(np.float16)
    once = _rounded(values, 4)
    np.testing.assert_array_equal(_rounded(once, 4), once)
    assert once.shape == values.shape
    assert not (once.view(np.uint16) & 0b111111).any()
    assert _rounded(values[:0], 4).size == 0
    with pytest.raises(ValueError, match="contiguous"):
        round_mantissa(np.ones((4, 4), np.float16)[:, ::2], 4)


@pytest.mark.parametrize(("dtype", "keep_bits"), [("float16", 10), ("float32", 23), ("float16", 0)])
def test_bits_that_round_nothing_are_refused(dtype: str, keep_bits: int) -> None:
    check_keep_bits("float32", 10)
    check_keep_bits(dtype, None)
    with pytest.raises(ValueError, match=rf"keep_bits: found {keep_bits}; {dtype} has \d+ bits"):
        check_keep_bits(dtype, keep_bits)
