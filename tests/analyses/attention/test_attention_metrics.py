from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.analyses.attention.reference_attention import Reference
from vitfeat.analyses.attention.metrics import (
    aligned_by_coverage,
    aligned_map,
    coverage,
    metrics,
    offsets,
    token_maps,
)
from vitfeat.analyses.attention.summary import AttentionSummary, Tokens
from vitfeat.errors import AnalysisError
from vitfeat.extraction.summary import summarise
from vitfeat.numerics.accumulate import StreamingMeans

GRIDS = [(3, 3), (2, 4), (4, 2), (1, 3), (3, 1), (1, 1)]
PREFIXES = [(True, 0), (True, 2), (False, 0), (False, 2)]
# Summaries are float32: shares of about 1, each from few numbers.
CLOSE = {"rtol": 2e-5, "atol": 1e-6}
NULLS = ("zero", "exclude")


def draw(
    images: int, heads: int, tokens: Tokens, sharpness: float = 2.0, null: bool = False
) -> np.ndarray:
    """Random attention; with ``null`` some rows have nothing on spatial keys, one head all rows."""
    generator = np.random.default_rng(tokens.n_tokens + heads)
    n, prefix = tokens.n_tokens, tokens.n_prefix
    scores = np.exp(sharpness * generator.normal(size=(images, heads, n, n)))
    if null:
        scores[0, 0, prefix :: max(2, tokens.n_spatial // 2), prefix:] = 0
        scores[-1, -1, prefix:, prefix:] = 0
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def summary_of(attention: np.ndarray, tokens: Tokens) -> AttentionSummary:
    found = summarise(torch.from_numpy(attention), tokens.n_prefix, tokens.grid)
    return AttentionSummary({name: tensor.numpy() for name, tensor in found.items()}, tokens)


def reference(image: np.ndarray, tokens: Tokens) -> Reference:
    return Reference(image, tokens.grid, tokens.has_cls, tokens.n_registers)


def check(found: dict[str, np.ndarray], expected: list[dict[str, np.ndarray]]) -> None:
    """Compare (image, ...) with the reference of each image."""
    for image, values in enumerate(expected):
        assert set(found) == set(values)
        for name, value in values.items():
            assert found[name][image].shape == value.shape, name
            np.testing.assert_allclose(found[name][image], value, err_msg=name, **CLOSE)


# --- Against loops over the attention itself ---


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("has_cls", "n_registers"), PREFIXES)
@pytest.mark.parametrize("grid", GRIDS)
def test_all_from_the_definitions(
    grid: tuple[int, int], has_cls: bool, n_registers: int, heads: int
) -> None:
    tokens = Tokens(grid, has_cls, n_registers)
    attention = draw(2, heads, tokens)
    found = summary_of(attention, tokens)
    truth = [reference(image, tokens) for image in attention]
    scalars = metrics(found, patch_size=14)
    assert all(values.dtype == np.float64 for values in scalars.values())
    check(scalars, [t.metrics("zero", 14) for t in truth])
    check(token_maps(found), [t.token_maps("zero") for t in truth])
    check({"": aligned_map(found)}, [{"": t.aligned("zero")} for t in truth])
    covered = aligned_by_coverage(aligned_map(found))
    check({"": covered}, [{"": t.aligned_by_coverage()} for t in truth])


@pytest.mark.parametrize("offset_null", NULLS)
@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("grid", [(3, 3), (2, 4)])
@pytest.mark.parametrize(("has_cls", "n_registers"), [(True, 0), (True, 2), (False, 2)])
def test_null_rows(
    grid: tuple[int, int], has_cls: bool, n_registers: int, null: str, offset_null: str
) -> None:
    tokens = Tokens(grid, has_cls, n_registers)
    attention = draw(2, 2, tokens, null=True)
    found = summary_of(attention, tokens)
    truth = [reference(image, tokens) for image in attention]
    scalars = metrics(found, patch_size=16, null=null, offset_null=offset_null)
    assert 0 < scalars["n_null"][0, 0] < tokens.n_spatial == scalars["n_null"][1, 1]
    assert np.isnan(scalars["distance"]).tolist() == [[False] * 2, [False, null == "exclude"]]
    check(scalars, [t.metrics(null, 16, offset_null) for t in truth])
    check(token_maps(found, null=null), [t.token_maps(null) for t in truth])
    check({"": aligned_map(found, null=null)}, [{"": t.aligned(null)} for t in truth])
    covered = aligned_by_coverage(aligned_map(found))
    check({"": covered}, [{"": t.aligned_by_coverage()} for t in truth])


@pytest.mark.parametrize("null", NULLS)
def test_half_precision(null: str) -> None:
    """The metrics are those of the rounded attention."""
    tokens = Tokens((2, 4), n_registers=1)
    attention = draw(2, 2, tokens, null=True).astype(np.float16)
    found = summary_of(attention, tokens)
    truth = [reference(image, tokens) for image in attention]
    check(metrics(found, patch_size=8, null=null), [t.metrics(null, 8) for t in truth])
    check(token_maps(found, null=null), [t.token_maps(null) for t in truth])


def test_any_leading_dimensions() -> None:
    """Image and layer, as in a store; or nothing but the head."""
    tokens = Tokens((2, 3))
    found = summary_of(draw(6, 2, tokens), tokens)
    layers = AttentionSummary(
        {n: a.reshape(3, 2, *a.shape[1:]) for n, a in found.arrays.items()}, tokens
    )
    single = AttentionSummary({n: a[5] for n, a in found.arrays.items()}, tokens)
    for function in (metrics, token_maps, lambda s: {"": aligned_map(s, null="exclude")}):
        flat, deep, one = (function(s) for s in (found, layers, single))
        for name, values in flat.items():
            np.testing.assert_array_equal(deep[name], values.reshape(3, 2, *values.shape[1:]))
            np.testing.assert_array_equal(one[name], values[5])


@pytest.mark.parametrize("null", NULLS)
def test_nothing_is_changed(null: str) -> None:
    tokens = Tokens((2, 3), n_registers=1)
    found = summary_of(draw(2, 2, tokens, null=True), tokens)
    kept = {name: array.copy() for name, array in found.arrays.items()}
    for array in found.arrays.values():
        array.flags.writeable = False
    metrics(found, patch_size=2, null=null)
    token_maps(found, null=null)
    aligned_by_coverage(aligned_map(found, null=null))
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(array, kept[name])


# --- Closed forms ---


@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (4, 1)])
def test_uniform_attention(grid: tuple[int, int]) -> None:
    tokens = Tokens(grid, n_registers=1)
    n, heads = tokens.n_tokens, 2
    found = summary_of(np.full((1, heads, n, n), 1 / n, dtype=np.float32), tokens)
    rows, columns = grid
    places = [(y, x) for y in range(rows) for x in range(columns)]
    mean = sum(math.dist(a, b) for a in places for b in places) / len(places) ** 2
    scalars = metrics(found, patch_size=7)
    np.testing.assert_allclose(scalars["distance_patches"], mean, rtol=1e-6)
    np.testing.assert_allclose(scalars["distance_pixels"], 7 * mean, rtol=1e-6)
    np.testing.assert_allclose(scalars["offset_x"], 0, atol=1e-6)
    np.testing.assert_allclose(scalars["offset_y"], 0, atol=1e-6)
    np.testing.assert_allclose(scalars["entropy"], math.log(n), rtol=1e-6)
    np.testing.assert_allclose(scalars["entropy_share"], 1, rtol=1e-6)
    for name in ("spatial_to_cls", "cls_to_cls", "spatial_to_registers", "cls_to_registers"):
        np.testing.assert_allclose(scalars[name], 1 / n, rtol=1e-6)
    np.testing.assert_allclose(scalars["deviation_positions"], 0, atol=1e-7)
    np.testing.assert_allclose(scalars["deviation_heads"], 0, atol=1e-7)
    # Every offset is as likely as any other once coverage is divided out.
    covered = aligned_by_coverage(aligned_map(found))
    np.testing.assert_allclose(covered, 1 / (rows * columns), rtol=1e-6)


def test_the_unit_square() -> None:
    """Corner to corner is the square root of 2 whatever the grid; uniform 2 x 2 by hand."""
    for grid in ((2, 2), (2, 5), (7, 3)):
        dy, dx = offsets(grid, of_image=True)
        assert math.hypot(dy[0, 0], dx[0, 0]) == pytest.approx(math.sqrt(2), rel=1e-15)
    tokens = Tokens((2, 2), has_cls=False)
    found = summary_of(np.full((1, 1, 4, 4), 0.25, dtype=np.float32), tokens)
    np.testing.assert_allclose(
        metrics(found)["distance"], (0 + 1 + 1 + math.sqrt(2)) / 4, rtol=1e-6
    )


def test_identity_attention() -> None:
    tokens = Tokens((2, 3))
    found = metrics(summary_of(np.eye(7, dtype=np.float32)[None, None], tokens))
    for name in (
        "distance",
        "distance_patches",
        "offset_x",
        "offset_y",
        "entropy",
        "entropy_share",
    ):
        assert found[name].tolist() == [[0]], name
    assert found["spatial_to_cls"].tolist() == [[0]]
    assert found["cls_to_cls"].tolist() == [[1]]
    assert "deviation_heads" not in found


def test_all_attention_on_cls() -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = np.zeros((1, 2, 8, 8), dtype=np.float32)
    attention[..., 0] = 1
    summary = summary_of(attention, tokens)
    found = metrics(summary)
    assert found["n_null"].tolist() == [[6, 6]]
    assert found["spatial_to_cls"].tolist() == found["cls_to_cls"].tolist() == [[1, 1]]
    assert found["spatial_to_registers"].tolist() == [[0, 0]]
    assert found["distance"].tolist() == [[0, 0]]
    left_out = metrics(summary, null="exclude")
    assert np.isnan(left_out["distance"]).all()
    assert left_out["spatial_to_cls"].tolist() == [[1, 1]]
    assert np.isnan(token_maps(summary, null="exclude")["spatial_queries_renormalised"]).all()


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (2, -3), (-1, 2)])
def test_a_constant_offset(step: tuple[int, int]) -> None:
    """Queries whose offset leaves the grid look at CLS: with ``exclude`` all is exact."""
    rows, columns = 4, 5
    tokens = Tokens((rows, columns))
    attention = np.zeros((1, 1, 21, 21), dtype=np.float32)
    attention[..., 0, 0] = 1
    for y in range(rows):
        for x in range(columns):
            to_y, to_x = y + step[0], x + step[1]
            inside = 0 <= to_y < rows and 0 <= to_x < columns
            attention[0, 0, 1 + y * columns + x, 1 + to_y * columns + to_x if inside else 0] = 1
    found = summary_of(attention, tokens)
    scores = metrics(found, null="exclude", patch_size=16)
    on_square = math.hypot(step[0] / (rows - 1), step[1] / (columns - 1))
    for name, expected in {
        "offset_x": step[1],
        "offset_y": step[0],
        "distance_patches": math.hypot(*step),
        "distance_pixels": 16 * math.hypot(*step),
        "distance": on_square,
    }.items():
        assert scores[name].item() == pytest.approx(expected, rel=1e-6)
    # All queries that have a key at the offset look at it.
    covered = aligned_by_coverage(aligned_map(found))[0, 0]
    assert covered[rows - 1 + step[0], columns - 1 + step[1]] == pytest.approx(1, rel=1e-6)
    assert np.count_nonzero(covered) == 1


def test_rows_without_spatial_attention_have_no_offset() -> None:
    """By hand: of four queries in a row two look one to the right, two at CLS alone."""
    attention = np.zeros((1, 1, 5, 5), dtype=np.float32)
    for query, key in enumerate((0, 2, 0, 4, 0)):
        attention[..., query, key] = 1
    summary = summary_of(attention, Tokens((1, 4)))
    assert metrics(summary)["distance_patches"].tolist() == [[0.5]]
    assert metrics(summary)["offset_x"].tolist() == [[1]]
    assert metrics(summary, offset_null="zero")["offset_x"].tolist() == [[0.5]]


def test_opposite_offsets_cancel_in_the_mean_vector_alone() -> None:
    """One row of two tokens that look at each other."""
    attention = np.array([[[[0, 1], [1, 0]]]], dtype=np.float32)
    found = metrics(summary_of(attention, Tokens((1, 2), has_cls=False)))
    assert found["offset_x"].item() == found["offset_y"].item() == 0
    assert found["distance_patches"].item() == 1


@pytest.mark.parametrize("grid", GRIDS)
def test_coverage_counts_queries(grid: tuple[int, int]) -> None:
    rows, columns = grid
    counted = np.zeros((2 * rows - 1, 2 * columns - 1), dtype=int)
    for y in range(rows):
        for x in range(columns):
            counted[rows - 1 - y : 2 * rows - 1 - y, columns - 1 - x : 2 * columns - 1 - x] += 1
    np.testing.assert_array_equal(coverage(grid), counted)


def test_the_cls_token_is_key_0() -> None:
    """The published code reads the first patch instead."""
    attention = np.zeros((1, 1, 5, 5), dtype=np.float32)
    attention[..., 0], attention[..., 1] = 0.25, 0.75
    found = metrics(summary_of(attention, Tokens((2, 2))))
    assert found["spatial_to_cls"].tolist() == found["cls_to_cls"].tolist() == [[0.25]]


# --- Over images ---


def test_batches_and_order_do_not_matter() -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = draw(11, 2, tokens, null=True)

    def means(order: np.ndarray, size: int) -> dict[str, np.ndarray]:
        parts = [StreamingMeans(), StreamingMeans()]
        for number, start in enumerate(range(0, len(order), size)):
            summary = summary_of(attention[order[start : start + size]], tokens)
            maps = {"aligned": aligned_map(summary, null="exclude")}
            parts[number % 2].update(
                metrics(summary, null="exclude") | token_maps(summary, null="exclude") | maps
            )
        parts[0].merge(parts[1])
        return parts[0].compute()

    whole = means(np.arange(11), 11)
    assert np.isfinite(np.concatenate([v.ravel() for v in whole.values()])).all()
    for size in (1, 2, 4, 10):
        for order in (np.arange(11), np.random.default_rng(size).permutation(11)):
            found = means(order, size)
            assert set(found) == set(whole)
            for name, values in whole.items():
                # The summaries of an image may differ in float32's last bit with its batch.
                np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-8)
    truth = [reference(image, tokens).distance("image", "exclude") for image in attention]
    np.testing.assert_allclose(whole["distance"], np.nanmean(truth, axis=0), rtol=1e-5)


# --- Errors ---


def test_what_a_model_lacks() -> None:
    bare = Tokens((1, 1), has_cls=False)
    found = summary_of(np.ones((1, 1, 1, 1), dtype=np.float32), bare)
    assert set(metrics(found)) == {
        "distance",
        "distance_patches",
        "offset_x",
        "offset_y",
        "entropy",
        "n_null",
    }
    assert "cls_query" not in token_maps(found)
    registers_only = Tokens((1, 2), has_cls=False, n_registers=1)
    scores = metrics(summary_of(draw(1, 1, registers_only), registers_only))
    assert "spatial_to_registers" in scores
    assert not {"spatial_to_cls", "cls_to_cls", "cls_to_registers"} & set(scores)


def test_summaries_that_do_not_fit() -> None:
    tokens = Tokens((2, 3))
    arrays = summary_of(draw(2, 2, tokens), tokens).arrays
    for name in arrays:
        with pytest.raises(AnalysisError, match=f"lack '{name}'"):
            AttentionSummary({n: a for n, a in arrays.items() if n != name}, tokens)
    with pytest.raises(AnalysisError, match="'spatial_query' has shape"):
        AttentionSummary(arrays, Tokens((2, 3), n_registers=1))
    with pytest.raises(AnalysisError, match="'spatial_query_renormalised' has shape"):
        AttentionSummary(arrays, Tokens((3, 2)))
    for value in (np.nan, np.inf, -np.inf):
        broken = arrays["aligned"].copy()
        broken[1, 1, 0, 0] = value
        with pytest.raises(AnalysisError, match="'aligned' holds values that are not finite"):
            AttentionSummary(arrays | {"aligned": broken}, tokens)
