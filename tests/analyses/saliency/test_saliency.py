"""What is kept of attention and how it covers a foreground, against plain loops and by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from vitfeat.analyses.saliency.compute import chance_iou, iou, joined, kept_tokens, merged, overlaps
from vitfeat.errors import AnalysisError

# --- What is kept ---


def kept_by_definition(row: np.ndarray, mass: Fraction) -> list[int]:
    """Smallest set in descending order whose exact sum reaches the mass, equal values by index."""
    values = [Fraction(float(v)) for v in row]
    total, summed, found = sum(values), Fraction(0), []
    for key in sorted(range(len(values)), key=lambda k: (-values[k], k)):
        if summed >= mass * total:
            break
        summed += values[key]
        found.append(key)
    return sorted(found)


def kept_by_ascending_sums(row: np.ndarray, mass: float) -> list[int]:
    """As DINO's figure says it: what lies beyond the share 1 - mass of the ascending sums."""
    values = np.asarray(row, dtype=np.float64) / np.sum(row, dtype=np.float64)
    found, summed = [], 0.0
    for key in np.argsort(values, kind="stable"):
        summed += values[key]
        if summed > 1 - mass:
            found.append(int(key))
    return sorted(found)


def rows(n: int, keys: int, seed: int, dtype: str = "float32") -> np.ndarray:
    scores = np.exp(2 * np.random.default_rng(seed).normal(size=(n, keys)))
    return (scores / scores.sum(-1, keepdims=True) * 0.7).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("mass", [0.05, 0.3, 0.6, 0.95, 1.0])
def test_kept_tokens_are_the_fewest_that_reach_the_mass(mass: float, dtype: str) -> None:
    attention = rows(40, 23, 1, dtype)
    kept = kept_tokens(attention, mass)
    # Within the tolerance of the definition no sum of these rows lies.
    expected = [kept_by_definition(row, Fraction(mass)) for row in attention]
    assert [np.flatnonzero(row).tolist() for row in kept] == expected


def test_ascending_sums_as_in_dino_keep_the_same() -> None:
    attention = rows(60, 49, 2)
    expected = [kept_by_ascending_sums(row, 0.6) for row in attention]
    assert [np.flatnonzero(row).tolist() for row in kept_tokens(attention, 0.6)] == expected


@pytest.mark.parametrize(
    ("row", "mass", "expected"),
    [
        ([5, 3, 1, 1], 0.6, [0, 1]),  # 0.5, then 0.8
        ([5, 3, 1, 1], 0.5, [0]),  # exactly the mass
        ([1, 1, 3, 5], 0.9, [0, 2, 3]),  # of the equal ones the first
        ([2, 4, 2, 2], 0.8, [0, 1, 2]),
        ([1] * 10, 0.6, [0, 1, 2, 3, 4, 5]),  # six tenths: rounding keeps no seventh
        ([0.1] * 10, 0.3, [0, 1, 2]),
        ([0, 0, 0, 7], 0.6, [3]),
        ([0, 0, 0, 0], 0.6, []),
        ([3], 0.6, [0]),
        ([1e-30, 3e-30], 0.9, [0, 1]),  # of any scale
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kept_tokens_by_hand(
    row: list[float], mass: float, expected: list[int], dtype: str
) -> None:
    attention = np.array(row, dtype=dtype)
    assert np.flatnonzero(kept_tokens(attention, mass)).tolist() == expected
    assert attention.tolist() == np.array(row, dtype=dtype).tolist()


@pytest.mark.parametrize("value", [0.1, 0.2, 0.3, 0.7, 1 / 3, 1e-20])
@pytest.mark.parametrize("n", [10, 20, 50, 200])
def test_rounding_keeps_no_token_more_of_equal_ones(n: int, value: float) -> None:
    for tenths in range(1, 10):
        assert kept_tokens(np.full(n, value), tenths / 10).sum() == tenths * n // 10


def test_many_equal_values_in_many_rows() -> None:
    attention = np.random.default_rng(3).integers(0, 4, (2, 30, 3, 17)).astype(np.float32)
    attention[0, 0] = 0
    kept = kept_tokens(attention, 0.6)
    for place in np.ndindex(attention.shape[:-1]):
        expected = kept_by_definition(attention[place], Fraction(3, 5))
        assert np.flatnonzero(kept[place]).tolist() == expected


def test_a_row_s_scale_does_not_matter() -> None:
    attention = rows(20, 30, 4, "float64")
    np.testing.assert_array_equal(kept_tokens(attention, 0.6), kept_tokens(attention * 37.5, 0.6))


@pytest.mark.parametrize("mass", [0, -0.1, 1.1, float("nan")])
def test_a_mass_out_of_range_is_refused(mass: float) -> None:
    with pytest.raises(AnalysisError, match="must be above 0 and at most 1"):
        kept_tokens(np.ones(3), mass)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_attention_that_is_none_is_refused(bad: float) -> None:
    attention = np.ones((2, 4))
    attention[1, 2] = bad
    with pytest.raises(AnalysisError, match="negative or not finite"):
        kept_tokens(attention, 0.6)


def test_no_keys_are_refused() -> None:
    with pytest.raises(AnalysisError, match="without keys"):
        kept_tokens(np.ones((2, 0)), 0.6)


# --- Heads merged ---


def test_merged_heads_by_hand() -> None:
    # The second head gives a tenth of what the first gives to the grid.
    heads = np.array([[[4.0, 4.0, 0.0], [0.0, 0.0, 0.8]]])
    np.testing.assert_allclose(merged(heads), [[2.0, 2.0, 0.4]])
    np.testing.assert_allclose(merged(heads, renormalised=True), [[0.25, 0.25, 0.5]])
    assert heads[0, 0, 0] == 4


def test_a_head_without_attention_to_the_grid_merges_as_nothing() -> None:
    heads = np.array([[0.0, 0.0], [1.0, 3.0]])
    np.testing.assert_allclose(merged(heads, renormalised=True), [0.125, 0.375])


# --- IoU and chance ---


def test_iou_by_hand() -> None:
    kept = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    foreground = np.array([0, 1, 1, 0], dtype=bool)
    np.testing.assert_array_equal(iou(kept, foreground), [1 / 3, 0, 0, 1 / 2])
    assert np.isnan(iou(np.zeros(3, bool), np.zeros(3, bool)))


@pytest.mark.parametrize("n", [1, 5, 7])
def test_chance_is_the_mean_over_all_choices(n: int) -> None:
    pairs = [(k, f) for k in range(n + 1) for f in range(n + 1)]
    expected = []
    for k, f in pairs:
        values = []
        for choice in combinations(range(n), k):
            both = sum(key < f for key in choice)
            values.append(both / (k + f - both) if both else 0.0)
        expected.append(sum(values) / len(values))
    k, f = np.array(pairs).T
    np.testing.assert_allclose(chance_iou(k, f, n), expected, rtol=1e-12, atol=1e-15)


def test_chance_on_a_real_grid_against_draws() -> None:
    generator = np.random.default_rng(5)
    foreground = np.arange(196) < 40
    draws = [
        iou(np.isin(np.arange(196), generator.choice(196, 90, replace=False)), foreground)
        for _ in range(2000)
    ]
    (found,) = chance_iou(np.array([90]), np.array([40]), 196)
    assert found == pytest.approx(np.mean(draws), abs=5 * np.std(draws) / np.sqrt(2000))
    shaped = chance_iou(np.full((2, 3), 90), np.full((2, 3), 40), 196)
    np.testing.assert_array_equal(shaped, np.full((2, 3), found))


# --- A layer ---


def by_loops(attention: np.ndarray, foreground: np.ndarray, mass: Fraction) -> list[list[float]]:
    found = []
    for image, truth in zip(attention, foreground, strict=True):
        ious = []
        for head in image:
            kept = set(kept_by_definition(head, mass))
            true = set(np.flatnonzero(truth).tolist())
            ious.append(len(kept & true) / len(kept | true))
        found.append(ious)
    return found


def test_a_layer_against_loops() -> None:
    attention = rows(6 * 4, 12, 6).reshape(6, 4, 12)
    foreground = np.random.default_rng(7).random((6, 12)) < 0.4
    foreground[:, 0] = True
    before = attention.copy()
    found = overlaps(attention, foreground, 0.6)
    mass = Fraction(0.6)
    np.testing.assert_allclose(found.heads, by_loops(attention, foreground, mass), rtol=1e-15)
    summed = attention.astype(np.float64).sum(1, keepdims=True)
    apart = attention / attention.sum(-1, keepdims=True, dtype=np.float64)
    together = apart.sum(1, keepdims=True)
    for name, rows_ in (("merged", summed), ("merged_paper", together)):
        expected = np.array(by_loops(rows_, foreground, mass))[:, 0]
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-15)
    kept = [[len(kept_by_definition(h, mass)) for h in image] for image in attention]
    np.testing.assert_array_equal(found.n_kept, kept)
    np.testing.assert_array_equal(attention, before)


def test_the_best_head_is_best_on_the_mean_and_not_image_by_image() -> None:
    # Head 0 sees the object of images 0 and 1, head 1 that of image 2; head 2 half of each.
    attention = np.array(
        [
            [[1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1]],
            [[1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1]],
            [[0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1]],
        ],
        dtype=np.float32,
    )
    foreground = np.tile([True, False, False, False], (3, 1))
    found = overlaps(attention, foreground, 1.0)
    np.testing.assert_allclose(found.heads.mean(0), [2 / 3, 1 / 3, 1 / 2])
    assert found.best_head == 0
    assert found.best_per_image.mean() == 1


def test_of_equal_heads_the_first_is_best() -> None:
    attention = np.tile(np.array([1.0, 0.0, 0.0]), (2, 4, 1))
    attention[:, 0] = [0, 0, 1]
    found = overlaps(attention, np.array([[1, 0, 0]] * 2, dtype=bool), 0.6)
    assert found.best_head == 1


def test_parts_joined_are_the_whole() -> None:
    attention = rows(7 * 3, 10, 8).reshape(7, 3, 10)
    foreground = np.random.default_rng(9).random((7, 10)) < 0.5
    whole = overlaps(attention, foreground, 0.6)
    parts = [overlaps(attention[at], foreground[at], 0.6) for at in (slice(0, 3), slice(3, 7))]
    for name, value in joined(parts)._asdict().items():
        np.testing.assert_array_equal(value, getattr(whole, name))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AnalysisError, match=r"\(2, 3, 4\).*\(2, 5\).*image, head, key"):
        overlaps(np.ones((2, 3, 4)), np.ones((2, 5), bool), 0.6)
