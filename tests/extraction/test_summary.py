from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.extraction.reference_summary import reference_summary
from vitfeat.extraction.summary import summarise, summarise_images
from vitfeat.store.arrays import SUMMARY_GROUP, Geometry
from vitfeat.store.layout import plan_layout

Summarise = Callable[[Tensor, int, tuple[int, int]], dict[str, Tensor]]


def _through_the_kernel(
    attention: Tensor, n_prefix: int, grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Give the kernel the arrays that a store would have, filled with what must not stay."""
    images, heads = attention.shape[:2]
    geometry = Geometry((0,), 8, heads, grid, bool(n_prefix), max(0, n_prefix - 1))
    arrays = plan_layout(geometry, ("attention_summary",), images, "float32").arrays
    out = {
        a.name.removeprefix(f"{SUMMARY_GROUP}/"): torch.full((images, *a.shape[1:]), torch.nan)
        for a in arrays
    }
    summarise_images(attention.float(), n_prefix, grid, out)
    return out


@pytest.fixture(params=[summarise, _through_the_kernel], ids=["torch", "kernel"])
def summary(request: pytest.FixtureRequest) -> Summarise:
    found: Summarise = request.param
    return found


def _attention(
    images: int, heads: int, n_prefix: int, grid: tuple[int, int], sharpness: float = 2.0
) -> Tensor:
    tokens = n_prefix + grid[0] * grid[1]
    generator = torch.Generator().manual_seed(tokens + heads)
    scores = torch.randn(images, heads, tokens, tokens, generator=generator)
    return (scores * sharpness).softmax(-1)


def _check(
    found: dict[str, Tensor], attention: Tensor, n_prefix: int, grid: tuple[int, int]
) -> None:
    for image in range(len(attention)):
        expected = reference_summary(attention[image].float().numpy(), n_prefix, grid)
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert found[name].dtype == torch.float32
            assert found[name][image].shape == values.shape, name
            np.testing.assert_allclose(
                found[name][image].numpy(), values, rtol=2e-5, atol=1e-7, err_msg=name
            )


@pytest.mark.parametrize("n_prefix", [0, 1, 5])
@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (5, 2), (1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("heads", [1, 3])
def test_random_attention(
    summary: Summarise, heads: int, n_prefix: int, grid: tuple[int, int]
) -> None:
    attention = _attention(2, heads, n_prefix, grid)
    _check(summary(attention, n_prefix, grid), attention, n_prefix, grid)


def test_a_realistic_size(summary: Summarise) -> None:
    attention = _attention(1, 2, 1, (8, 8), sharpness=6.0)
    _check(summary(attention, 1, (8, 8)), attention, 1, (8, 8))


def test_half_precision(summary: Summarise) -> None:
    """The numbers are those of the rounded attention, summed in float32."""
    attention = _attention(2, 2, 1, (3, 4)).half()
    _check(summary(attention, 1, (3, 4)), attention, 1, (3, 4))


def test_views_need_not_be_contiguous(summary: Summarise) -> None:
    attention = _attention(2, 2, 1, (3, 4)).transpose(1, 2).contiguous().transpose(1, 2)
    assert not attention.is_contiguous()
    _check(summary(attention, 1, (3, 4)), attention, 1, (3, 4))


def test_rows_with_nothing_on_spatial_keys(summary: Summarise) -> None:
    attention = _attention(1, 2, 2, (2, 3))
    for query in (2, 5):
        attention[0, 1, query, 2:] = 0
        attention[0, 1, query] /= attention[0, 1, query].sum()
    found = summary(attention, 2, (2, 3))
    _check(found, attention, 2, (2, 3))
    assert found["n_null"].tolist() == [[0, 2]]
    # Four of six rows are left in the second head.
    torch.testing.assert_close(found["aligned"].sum((-2, -1)), torch.tensor([[1, 4 / 6]]))
    torch.testing.assert_close(
        found["spatial_query_renormalised"].sum((-2, -1)), torch.tensor([[1, 4 / 6]])
    )


@pytest.mark.parametrize("mass", [1e-45, 1e-42, 1e-39, 1.1e-38])
def test_rows_with_hardly_anything_on_spatial_keys(summary: Summarise, mass: float) -> None:
    """Below the smallest normal float32 they count as nothing: their inverse is infinite."""
    attention = _attention(1, 2, 1, (2, 3))
    attention[0, 1, 4] = torch.tensor([1.0, 0, 0, 0, mass, 0, 0])
    found = summary(attention, 1, (2, 3))
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert found["n_null"].tolist() == [[0, 1]]
    attention[0, 1, 4] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0])
    nothing = summary(attention, 1, (2, 3))
    assert torch.equal(found["aligned"], nothing["aligned"])
    # A little more, and the row counts as every other.
    attention[0, 1, 4, 4] = 1.3e-38
    assert summary(attention, 1, (2, 3))["n_null"].tolist() == [[0, 0]]
    torch.testing.assert_close(
        summary(attention, 1, (2, 3))["aligned"].sum((-2, -1)), torch.ones(1, 2)
    )


def test_the_input_is_not_changed(summary: Summarise) -> None:
    attention = _attention(2, 3, 1, (2, 3))
    kept = attention.clone()
    found = summary(attention, 1, (2, 3))
    assert torch.equal(attention, kept)
    for tensor in found.values():
        tensor.zero_()  # nor does a result that is a view of it reach further than its own part
    assert torch.equal(attention[:, :, 1:], kept[:, :, 1:])


# --- Closed forms ---


def test_uniform_attention(summary: Summarise) -> None:
    grid, n_prefix = (2, 3), 1
    found = summary(torch.full((1, 2, 7, 7), 1 / 7), n_prefix, grid)
    torch.testing.assert_close(found["entropy"], torch.full((1, 2), math.log(7)))
    torch.testing.assert_close(found["spatial_query"], torch.full((1, 2, 7), 1 / 7))
    torch.testing.assert_close(found["spatial_query_renormalised"], torch.full((1, 2, 2, 3), 1 / 6))
    for name in ("deviation_positions", "deviation_heads", "deviation_heads_all"):
        torch.testing.assert_close(found[name], torch.zeros_like(found[name]), atol=1e-7, rtol=0)
    # An offset occurs as often as two windows of the grid overlap: a pyramid.
    pyramid = torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0])
    torch.testing.assert_close(found["aligned"][0, 0], pyramid / 36)


def test_identity_attention(summary: Summarise) -> None:
    found = summary(torch.eye(7).expand(1, 2, 7, 7), 1, (2, 3))
    assert found["entropy"].abs().max() == 0
    centre = torch.zeros(3, 5)
    centre[1, 2] = 1
    torch.testing.assert_close(found["aligned"][0, 0], centre)
    torch.testing.assert_close(found["spatial_query"][0, 0], torch.tensor([0] + [1 / 6] * 6))
    # Each key is 1 once and 0 five times: variance (1 - 1/6) / 5.
    torch.testing.assert_close(
        found["deviation_positions"], torch.full((1, 2), math.sqrt(5 / 6 / 5))
    )
    assert found["n_null"].abs().max() == 0


def test_all_attention_on_cls(summary: Summarise) -> None:
    attention = torch.zeros(1, 2, 7, 7)
    attention[..., 0] = 1
    found = summary(attention, 1, (2, 3))
    assert found["n_null"].tolist() == [[6, 6]]
    for name in ("aligned", "spatial_query_renormalised", "entropy", "deviation_positions"):
        assert found[name].abs().max() == 0, name
    assert found["spatial_query"][0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert found["prefix_query"][0, 0].tolist() == [[1, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (2, -3), (-1, 2)])
def test_attention_at_a_constant_offset(summary: Summarise, offset: tuple[int, int]) -> None:
    """Queries whose offset leaves the grid look at CLS: aligned has one peak, at that offset."""
    rows, columns = 4, 5
    attention = torch.zeros(1, 2, 21, 21)
    inside = 0
    for y in range(rows):
        for x in range(columns):
            to_y, to_x = y + offset[0], x + offset[1]
            key = 0
            if 0 <= to_y < rows and 0 <= to_x < columns:
                key, inside = 1 + to_y * columns + to_x, inside + 1
            attention[:, :, 1 + y * columns + x, key] = 1
    found = summary(attention, 1, (rows, columns))
    expected = torch.zeros(7, 9)
    expected[rows - 1 + offset[0], columns - 1 + offset[1]] = inside / 20
    torch.testing.assert_close(found["aligned"][0, 1], expected)
    assert found["n_null"].tolist() == [[20 - inside] * 2]


def test_the_deviation_over_heads_is_of_spatial_queries_and_keys(summary: Summarise) -> None:
    """By hand: CLS, a register and two patches; heads differ by 0.2 wherever a prefix token is."""
    attention = torch.full((1, 2, 4, 4), 0.25)
    attention[0, 1, :2] += 0.2
    attention[0, 1, 2:, :2] -= 0.2
    found = summary(attention, 2, (1, 2))
    torch.testing.assert_close(found["deviation_heads"], torch.zeros(1), atol=1e-7, rtol=0)
    # Twelve of sixteen entries differ, each with a deviation of 0.2 / sqrt(2).
    expected = torch.tensor([12 / 16 * 0.2 / math.sqrt(2)])
    torch.testing.assert_close(found["deviation_heads_all"], expected)
    # Between two spatial tokens: one of four such entries, and one of all sixteen more.
    attention[0, 0, 3, 2] = 0.95
    found = summary(attention, 2, (1, 2))
    torch.testing.assert_close(found["deviation_heads"], torch.tensor([0.7 / math.sqrt(2) / 4]))
    expected += 0.7 / math.sqrt(2) / 16
    torch.testing.assert_close(found["deviation_heads_all"], expected)


def test_deviations_at_the_size_of_a_vit_b16_are_those_of_numpy(summary: Summarise) -> None:
    """As the paper's code takes them: CLS dropped from queries and keys, ddof 1."""
    attention = _attention(2, 12, 1, (14, 14))
    found = summary(attention, 1, (14, 14))
    without_cls = attention[:, :, 1:, 1:].numpy().astype(np.float64)
    expected = without_cls.std(axis=1, ddof=1).mean(axis=(1, 2))
    np.testing.assert_allclose(found["deviation_heads"].numpy(), expected, rtol=2e-5)
    every = attention.numpy().astype(np.float64).std(axis=1, ddof=1).mean(axis=(1, 2))
    np.testing.assert_allclose(found["deviation_heads_all"].numpy(), every, rtol=2e-5)
    # They are not the same number.
    assert np.abs(expected / every - 1).min() > 1e-4


def test_two_heads_that_differ_by_a_constant(summary: Summarise) -> None:
    """The deviation of a and b is |a - b| / sqrt(2)."""
    attention = torch.zeros(1, 2, 4, 4)
    attention[0, 0] = torch.tensor([0.5, 0.5, 0, 0])
    attention[0, 1] = torch.tensor([0, 0, 0.5, 0.5])
    found = summary(attention, 0, (2, 2))
    for name in ("deviation_heads", "deviation_heads_all"):
        torch.testing.assert_close(found[name], torch.tensor([0.5 / math.sqrt(2)]))
