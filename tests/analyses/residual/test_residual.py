"""Ratios of norms of skips and branches, and what their CKA is read from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from vitfeat.analyses.residual.compute import cka_rows, norm_ratios, norm_rows, summed
from vitfeat.analyses.rows import ResidualCkaRow
from vitfeat.errors import AnalysisError
from vitfeat.numerics.accumulate import StreamingMoments

NAN = math.nan
RATIOS = ("cls", "spatial", "spatial_tokens", "all")


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def tokens(*norms: float) -> np.ndarray:
    """One image and layer with these norms."""
    return np.array(norms, dtype=np.float32)[None, None]


def ratios_of_one(skip: np.ndarray, branch: np.ndarray, **prefix: object) -> dict[str, float]:
    options = {"has_cls": True, "n_registers": 0} | prefix
    return {name: v.item() for name, v in norm_ratios(skip, branch, **options).items()}


def loops(
    skip: np.ndarray, branch: np.ndarray, has_cls: bool, n_registers: int
) -> dict[str, list[list[float]]]:
    """The definitions, token by token."""
    first = has_cls + n_registers
    found: dict[str, list[list[float]]] = {"spatial": [], "spatial_tokens": [], "all": []}
    if has_cls:
        found["cls"] = []
    for skips, branches in zip(skip, branch, strict=True):
        rows: dict[str, list[float]] = {name: [] for name in found}
        for s, b in zip(skips.tolist(), branches.tolist(), strict=True):
            if has_cls:
                rows["cls"].append(s[0] / b[0] if b[0] else NAN)
            above, below, total, count = 0.0, 0.0, 0.0, 0
            for t in range(first, len(s)):
                above += s[t] ** 2
                below += b[t] ** 2
                if b[t]:
                    total += s[t] / b[t]
                    count += 1
            rows["spatial"].append(math.sqrt(above) / math.sqrt(below) if below else NAN)
            rows["spatial_tokens"].append(total / count if count else NAN)
            every = [math.sqrt(sum(n**2 for n in side)) for side in (s, b)]
            rows["all"].append(every[0] / every[1] if every[1] else NAN)
        for name, row in rows.items():
            found[name].append(row)
    return found


def test_a_case_by_hand() -> None:
    # CLS 84 over 4. Spatial: 3-4-12 has the length 13, 1-2-2 the length 3; 3/1, 4/2, 12/2. All:
    # 84-13 has the length 85, 4-3 the length 5.
    found = ratios_of_one(tokens(84, 3, 4, 12), tokens(4, 1, 2, 2))
    expected = {"cls": 21, "spatial": 13 / 3, "spatial_tokens": 11 / 3, "all": 17}
    assert found == pytest.approx(expected)


def test_one_token_of_large_norm_decides_frobenius_and_not_the_mean() -> None:
    # 99 tokens of 1 over 1 and an artefact of 1000 over 10.
    skip, branch = tokens(1, *[1] * 99, 1000), tokens(1, *[1] * 99, 10)
    found = ratios_of_one(skip, branch)
    assert found["spatial"] == pytest.approx(math.sqrt((99 + 1e6) / (99 + 100)))
    assert found["spatial_tokens"] == pytest.approx(1.99)


def test_equal_norms_have_ratio_one_and_a_factor_comes_through() -> None:
    skip = tokens(3, 1, 4, 1, 5)
    assert ratios_of_one(skip, skip) == dict.fromkeys(RATIOS, 1)
    assert ratios_of_one(skip, skip / 4) == dict.fromkeys(RATIOS, 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("has_cls", "n_registers"), [(True, 0), (True, 4), (False, 0), (False, 2)])
def test_from_the_definition(
    rng: np.random.Generator, has_cls: bool, n_registers: int, dtype: type
) -> None:
    skip, branch = (rng.lognormal(size=(5, 3, 13)).astype(dtype) for _ in range(2))
    branch[rng.random(branch.shape) < 0.2] = 0
    branch[0, 1], branch[4, 2, 0] = 0, 0
    given = skip.copy(), branch.copy()
    found = norm_ratios(skip, branch, has_cls=has_cls, n_registers=n_registers)
    expected = loops(skip, branch, has_cls, n_registers)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], values, rtol=1e-12)
    np.testing.assert_array_equal(skip, given[0])
    np.testing.assert_array_equal(branch, given[1])


def test_registers_are_in_neither_spatial_ratio() -> None:
    skip, branch = tokens(6, 500, 0, 3, 4), tokens(2, 1, 7, 1, 2)
    found = ratios_of_one(skip, branch, n_registers=2)
    every = math.sqrt((36 + 500**2 + 25) / (4 + 1 + 49 + 5))
    expected = {"cls": 3, "spatial": 5 / math.sqrt(5), "spatial_tokens": 2.5, "all": every}
    assert found == pytest.approx(expected)
    without = ratios_of_one(skip[:, :, 1:], branch[:, :, 1:], n_registers=2, has_cls=False)
    assert without.pop("all") == pytest.approx(math.sqrt((500**2 + 25) / (1 + 49 + 5)))
    assert without == {name: found[name] for name in ("spatial", "spatial_tokens")}


def test_over_a_branch_of_zero_there_is_no_ratio() -> None:
    # A token without branch is left out of the mean over tokens; a block without has nothing.
    some = ratios_of_one(tokens(6, 3, 4), tokens(0, 0, 2))
    all_tokens = math.sqrt(61) / 2
    expected = {"cls": NAN, "spatial": 2.5, "spatial_tokens": 2, "all": all_tokens}
    assert some == pytest.approx(expected, nan_ok=True)
    none = ratios_of_one(tokens(6, 3, 4), tokens(2, 0, 0))
    expected = {"cls": 3, "spatial": NAN, "spatial_tokens": NAN, "all": all_tokens}
    assert none == pytest.approx(expected, nan_ok=True)
    assert math.isnan(ratios_of_one(tokens(6, 3, 4), tokens(0, 0, 0))["all"])
    # A skip of zero has one, and zero over zero has not.
    zero = ratios_of_one(tokens(0, 0, 0), tokens(2, 0, 1))
    assert zero == dict.fromkeys(RATIOS, 0)


def test_tiny_branches_keep_their_ratio() -> None:
    # Squares of either would be beyond float32.
    skip, branch = tokens(1e25, 1e25, 1e25), tokens(1e-30, 1e-30, 1e-30)
    for value in ratios_of_one(skip, branch).values():
        assert value == pytest.approx(1e55, rel=1e-6)


@pytest.mark.parametrize("bad", [NAN, math.inf, -1.0])
def test_norms_that_are_none_fail(bad: float) -> None:
    for skip, branch in ((tokens(1, bad), tokens(1, 1)), (tokens(1, 1), tokens(1, bad))):
        with pytest.raises(AnalysisError, match="negative or not finite"):
            norm_ratios(skip, branch, has_cls=True, n_registers=0)


def test_shapes_that_do_not_fit_fail() -> None:
    with pytest.raises(AnalysisError, match=r"\(1, 1, 3\) and of branch outputs \(1, 1, 2\)"):
        norm_ratios(tokens(1, 2, 3), tokens(1, 2), has_cls=True, n_registers=0)
    with pytest.raises(AnalysisError, match="give both as"):
        norm_ratios(np.ones((2, 3)), np.ones((2, 3)), has_cls=True, n_registers=0)
    with pytest.raises(AnalysisError, match=r"3 tokens of which 3 .* no spatial token"):
        norm_ratios(tokens(1, 2, 3), tokens(1, 2, 3), has_cls=True, n_registers=2)


@pytest.mark.parametrize("size", [1, 4, 9])
def test_rows_average_over_images_and_not_over_batches(rng: np.random.Generator, size: int) -> None:
    # Nine images in batches of four: 4, 4 and 1. One layer has no branch in three of them.
    skip, branch = (rng.lognormal(size=(9, 2, 6)) for _ in range(2))
    branch[[0, 4, 5], 1] = 0
    moments = {"mlp": StreamingMoments()}
    for start in range(0, 9, size):
        own = slice(start, start + size)
        moments["mlp"].update(norm_ratios(skip[own], branch[own], has_cls=True, n_registers=1))
    found = list(norm_rows(moments, model="m", dataset="d", layers=(3, 7)))
    assert [(r.ratio, r.layer) for r in found] == [
        (ratio, layer) for ratio in RATIOS for layer in (3, 7)
    ]
    expected = loops(skip, branch, True, 1)
    for row in found:
        column = [image[(3, 7).index(row.layer)] for image in expected[row.ratio]]
        there = [v for v in column if v == v]
        mean = sum(there) / len(there)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in there) / (len(there) - 1))
        assert (row.model, row.dataset, row.branch) == ("m", "d", "mlp")
        assert row.n_images == len(there) == (9 if row.layer == 3 else 6)
        assert (row.mean, row.deviation) == pytest.approx((mean, deviation), rel=1e-12)


def test_a_branch_that_is_always_zero_has_rows_that_say_so() -> None:
    moments = {"attn": StreamingMoments()}
    branch = np.zeros((4, 1, 3))
    moments["attn"].update(norm_ratios(branch + 1, branch, has_cls=True, n_registers=0))
    found = list(norm_rows(moments, model="m", dataset="d", layers=(0,)))
    assert [row.n_images for row in found] == [0] * 4
    assert all(math.isnan(row.mean) and math.isnan(row.deviation) for row in found)


def test_rows_of_cka_name_skip_and_branch() -> None:
    values = np.array([[1, 0.5], [NAN, -0.1]])
    about = {"model": "m", "dataset": "d", "branch": "attn", "tokens": "cls", "n_images": 9}
    found = list(cka_rows(values, layers=(3, 7), **about))
    assert all(isinstance(row, ResidualCkaRow) for row in found)
    assert [(r.layer_skip, r.layer_branch) for r in found] == [(3, 3), (3, 7), (7, 3), (7, 7)]
    np.testing.assert_array_equal([r.cka for r in found], values.ravel())
    assert {r._replace(layer_skip=0, layer_branch=0, cka=0) for r in found} == {
        ResidualCkaRow("m", "d", "attn", "cls", 0, 0, 9, 0)
    }


def test_a_sum_is_made_in_float32(rng: np.random.Generator) -> None:
    # In float16 the smaller part would be lost, and the largest sum infinite.
    one = (1000 * rng.normal(size=(13, 2, 3))).astype(np.float16)
    other = (0.01 * rng.normal(size=(13, 2, 3))).astype(np.float16)
    one[5] = other[5] = 60000
    given = one.copy(), other.copy()
    read = summed([lambda start, stop: one[start:stop], lambda start, stop: other[start:stop]])
    whole = one.astype(np.float32) + other.astype(np.float32)
    for start, stop in ((0, 13), (0, 1), (3, 11), (12, 13)):
        found = read(start, stop)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, whole[start:stop])
    np.testing.assert_array_equal(one, given[0])
    np.testing.assert_array_equal(other, given[1])


def test_a_sum_leaves_float32_parts_as_they_are(rng: np.random.Generator) -> None:
    part = rng.normal(size=(5, 4)).astype(np.float32)
    given = part.copy()
    read = summed([lambda start, stop: part[start:stop]] * 3)
    np.testing.assert_allclose(read(0, 5), 3 * given, rtol=1e-6)
    np.testing.assert_array_equal(part, given)
