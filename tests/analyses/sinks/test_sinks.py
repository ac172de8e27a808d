"""Attention on high-norm tokens, against loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vitfeat.analyses.sinks.compute import high_norm_tokens, sink_shares
from vitfeat.errors import AnalysisError


def by_loops(row: np.ndarray, high: np.ndarray) -> float:
    """The share of one query, by exact sums."""
    return math.fsum(float(a) for a, sink in zip(row, high, strict=True) if sink) / math.fsum(
        float(a) for a in row
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shares_by_loops(dtype: str) -> None:
    generator = np.random.default_rng(0)
    attention = (generator.random((5, 3, 14)) ** 4).astype(dtype)
    high = generator.random((5, 14)) < 0.3
    before = attention.copy()
    expected = [[by_loops(head, high[i]) for head in image] for i, image in enumerate(attention)]
    np.testing.assert_allclose(sink_shares(attention, high), expected, rtol=1e-14)
    np.testing.assert_array_equal(attention, before)


def test_uniform_attention_gives_the_share_of_tokens() -> None:
    high = np.arange(12) < np.array([[0], [3], [12]])
    np.testing.assert_allclose(
        sink_shares(np.full((3, 2, 12), 0.07), high), [[0] * 2, [0.25] * 2, [1] * 2]
    )


def test_all_attention_on_one_token_is_1_where_it_is_high_norm_and_0_elsewhere() -> None:
    attention = np.zeros((1, 2, 4))
    attention[0, 0, 2] = attention[0, 1, 3] = 0.4
    assert sink_shares(attention, np.array([[False, False, True, False]])).tolist() == [[1, 0]]


def test_a_head_that_gives_nothing_to_spatial_tokens_has_no_share() -> None:
    attention = np.array([[[0.0, 0.0], [1e-40, 0.0], [0.0, 2e-38]]])
    found = sink_shares(attention, np.array([[True, False]]))
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 0]])


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_attention_that_is_none_is_refused(bad: float) -> None:
    attention = np.ones((2, 2, 3), dtype=np.float32)
    attention[1, 0, 2] = bad
    with pytest.raises(AnalysisError, match="negative or not finite: extract"):
        sink_shares(attention, np.ones((2, 3), dtype=bool))


def test_high_norm_tokens_by_hand() -> None:
    features = np.zeros((3, 1, 5, 2), dtype=np.float16)
    features[0, 0, :, 0] = [1, 1, 1, 3, 4]
    features[1, 0, :, 1] = [2, 2, -2, 2, 2]
    features[2, 0, :, 0] = [160, 151, 150, 100, 149]
    found = high_norm_tokens(features, "median")
    # A norm that equals three medians is not above them.
    assert found.tolist() == [[False, False, False, False, True], [False] * 5, [False] * 5]
    assert high_norm_tokens(features, "absolute")[2].tolist() == [True, True, False, False, False]
    assert high_norm_tokens(features, "mad")[0].tolist() == [False, False, False, True, True]


def test_tokens_are_counted_row_by_row() -> None:
    features = np.ones((1, 2, 3, 4))
    features[0, 1, 0] = 100
    assert np.flatnonzero(high_norm_tokens(features, "median")).tolist() == [3]
