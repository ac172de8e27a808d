"""Means and deviations over images that arrive in batches."""

from __future__ import annotations

import numpy as np
import pytest

from vitfeat.errors import AnalysisError
from vitfeat.numerics.accumulate import StreamingMoments


def moments(*batches: np.ndarray) -> StreamingMoments:
    found = StreamingMoments()
    for batch in batches:
        found.update({"x": batch})
    return found


def loops(values: np.ndarray) -> tuple[list[int], list[float], list[float]]:
    """Count, mean and deviation (ddof 1) of each column from the definition, NaN left out."""
    counts, means, deviations = [], [], []
    for column in values.T:
        there = [float(v) for v in column if v == v]
        n = len(there)
        mean = sum(there) / n if n else float("nan")
        squares = sum((v - mean) ** 2 for v in there)
        counts.append(n)
        means.append(mean)
        deviations.append((squares / (n - 1)) ** 0.5 if n > 1 else float("nan"))
    return counts, means, deviations


def assert_close(found: StreamingMoments, values: np.ndarray, rtol: float = 1e-12) -> None:
    counts, means, deviations = loops(values)
    np.testing.assert_array_equal(found.counts["x"], counts)
    np.testing.assert_allclose(found.means["x"], means, rtol=rtol)
    np.testing.assert_allclose(found.deviations["x"], deviations, rtol=rtol)


@pytest.mark.parametrize("size", [1, 7, 16, 50])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_from_the_definition(rng: np.random.Generator, dtype: type, size: int) -> None:
    values = (10 * rng.normal(size=(50, 3)) + 3).astype(dtype)
    given = values.copy()
    found = moments(*(values[i : i + size] for i in range(0, 50, size)))
    assert_close(found, values.astype(np.float64))
    np.testing.assert_array_equal(values, given)
    assert found.means["x"].dtype == found.deviations["x"].dtype == np.float64


def test_what_does_not_exist_is_left_out(rng: np.random.Generator) -> None:
    values = rng.normal(size=(30, 4))
    values[::3, 0] = np.nan
    values[:, 1] = np.nan
    values[1:, 2] = np.nan
    values[:11, 3] = np.nan
    # The first batch has nothing of the last column.
    found = moments(values[:10], values[10:12], values[12:])
    assert_close(found, values)
    assert found.counts["x"].tolist() == [20, 0, 1, 19]
    assert np.isnan(found.deviations["x"]).tolist() == [False, True, True, False]


def test_a_large_mean_takes_nothing_from_a_small_deviation(rng: np.random.Generator) -> None:
    # Sums of squares would lose all sixteen digits of float64 here.
    values = 1e8 + 1e-3 * rng.normal(size=(400, 2))
    found = moments(*np.split(values, 40))
    expected = (values - 1e8).std(axis=0, ddof=1)
    np.testing.assert_allclose(found.deviations["x"], expected, rtol=1e-4)


def test_parts_and_orders_do_not_matter(rng: np.random.Generator) -> None:
    values = rng.lognormal(size=(40, 3))
    values[rng.random(values.shape) < 0.2] = np.nan
    whole = moments(values)
    for order in (np.arange(40)[::-1], rng.permutation(40)):
        left, right = moments(*np.array_split(values[order[:23]], 4)), moments(values[order[23:]])
        before = right.means["x"].copy()
        left.merge(right)
        for name in ("counts", "means", "deviations"):
            one, other = getattr(left, name)["x"], getattr(whole, name)["x"]
            np.testing.assert_allclose(one, other, rtol=1e-12)
        np.testing.assert_array_equal(right.means["x"], before)
    empty = StreamingMoments()
    empty.merge(whole)
    whole.merge(StreamingMoments())
    np.testing.assert_array_equal(empty.means["x"], whole.means["x"])


def test_constants_have_no_deviation() -> None:
    found = moments(np.full((5, 1), 0.1), np.full((6, 1), 0.1))
    assert found.deviations["x"][0] == pytest.approx(0, abs=1e-16)


def test_unlike_parts_fail_and_nothing_is_taken_in(rng: np.random.Generator) -> None:
    found = moments(np.ones((3, 2)))
    with pytest.raises(AnalysisError, match=r"'x' has shape \(3,\) in one part and \(2,\)"):
        found.update({"x": np.ones((3, 3))})
    with pytest.raises(AnalysisError, match="'x' has shape none in one part"):
        found.update({"y": np.ones((3, 2))})
    with pytest.raises(AnalysisError, match="'x' has infinite values"):
        found.update({"x": np.array([[1, np.inf]])})
    assert found.counts["x"].tolist() == [3, 3]
