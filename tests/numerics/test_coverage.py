from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitfeat.data.views import DenseView, PaddedView, SquareView, View
from vitfeat.errors import AnalysisError
from vitfeat.numerics.coverage import Box, coverage, foreground, token_weights

Mask = NDArray[np.bool_]
Float = NDArray[np.float64]

# Left, top, right, bottom: whole and broken, within the image, beyond it, and far from it.
BOXES = [
    (0.0, 0.0, 31.0, 23.0),
    (4.0, 0.0, 27.0, 23.0),
    (3.4, 1.7, 21.9, 20.2),
    (10.2, 11.3, 12.1, 12.4),
    (-5.5, -2.25, 40.0, 30.0),
    (-40.0, -40.0, -1.0, -1.0),
    (30.5, 22.5, 60.0, 50.0),
]


def a_mask(seed: int, height: int = 23, width: int = 31) -> Mask:
    return np.random.default_rng(seed).random((height, width)) < 0.4


def by_loops(mask: Mask, box: Box, grid: tuple[int, int]) -> Float:
    """Add up the area that every pixel of the mask shares with every token."""
    left, top, right, bottom = box
    deep, wide = (bottom - top) / grid[0], (right - left) / grid[1]
    shares = np.zeros(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            y, x = top + i * deep, left + j * wide
            area = 0.0
            for h in range(mask.shape[0]):
                for w in range(mask.shape[1]):
                    if mask[h, w]:
                        across = max(0.0, min(x + wide, w + 1) - max(x, w))
                        down = max(0.0, min(y + deep, h + 1) - max(y, h))
                        area += across * down
            shares[i, j] = area / (deep * wide)
    return shares


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("grid", [(1, 1), (4, 6), (7, 3)])
def test_against_loops(box: Box, grid: tuple[int, int]) -> None:
    mask = a_mask(1)
    found = coverage(mask, box, grid)
    assert found.shape == grid
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_loops(mask, box, grid), rtol=0, atol=2e-12)


def test_against_supersampling() -> None:
    # Edges of tokens on quarters of a pixel: 4 x 4 samples a pixel are exact.
    mask, box, grid = a_mask(2), (2.25, 1.5, 20.25, 16.5), (5, 8)
    samples = mask.repeat(4, axis=0).repeat(4, axis=1)[6:66, 9:81]
    tokens = samples.reshape(5, 12, 8, 9).mean(axis=(1, 3))
    np.testing.assert_allclose(coverage(mask, box, grid), tokens, rtol=0, atol=1e-12)


def test_memory_order_and_slices_do_not_matter() -> None:
    mask, box = a_mask(3), (3.4, 1.7, 21.9, 20.2)
    want = coverage(mask, box, (4, 4))
    assert (coverage(np.asfortranarray(mask), box, (4, 4)) == want).all()
    before = mask.copy()
    coverage(mask[::1], box, (4, 4))
    assert (mask == before).all()


@pytest.mark.parametrize("box", BOXES)
def test_area_is_conserved(box: Box) -> None:
    mask = a_mask(4)
    left, top, right, bottom = box
    grid = (5, 3)
    token = (right - left) * (bottom - top) / 15
    whole = by_loops(mask, box, (1, 1))[0, 0] * token * 15
    assert coverage(mask, box, grid).sum() * token == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_tokens_within_the_mask_have_exactly_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, top = rng.uniform(0, 10, 2)
    box = (left, top, left + rng.uniform(5, 20), top + rng.uniform(5, 12))
    grid = (int(rng.integers(1, 17)), int(rng.integers(1, 17)))
    assert (coverage(np.ones((23, 31), dtype=bool), box, grid) == 1).all()


def test_an_exact_half_is_foreground_whatever_the_rounding() -> None:
    # Tokens that reach as far to the left of the mask's edge as to the right.
    mask = np.zeros((40, 40), dtype=bool)
    mask[:, 20:] = True
    for reach in np.random.default_rng(5).uniform(0.1, 19, 300):
        box = (20 - reach, 3.0, 20 + reach, 17.0)
        assert coverage(mask, box, (3, 1)).tolist() == [[0.5]] * 3
        assert foreground(mask, box, (3, 1), "coverage").all()


def test_half_of_a_padded_image() -> None:
    # 40 x 20 pixels in a square of 40: tokens of 10, the image in the middle two rows.
    mask = np.zeros((20, 40), dtype=bool)
    mask[:, :15] = True
    box = PaddedView((224, 224)).box(40, 20)
    expected = [[0, 0, 0, 0], [1, 0.5, 0, 0], [1, 0.5, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(coverage(mask, box, (4, 4)), expected)


def smooth(height: int, width: int) -> Mask:
    """A mask with long, curved edges."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.asarray(np.hypot((x / width - 0.3) * 1.3, y / height - 0.55) < 0.31)


@pytest.mark.parametrize("size", [(330, 213), (150, 410), (256, 256)])
@pytest.mark.parametrize(
    "view",
    [
        SquareView((128, 128)),
        SquareView((96, 160), 1.0),
        PaddedView((128, 128)),
        DenseView("short", 128, (16, 16)),
    ],
)
def test_tokens_lie_where_the_view_has_them(view: View, size: tuple[int, int]) -> None:
    # The mask goes through the view as a picture; its tokens' means are the shares but for the
    # blur of the filter at their edges. Half a pixel of displacement would be seen.
    width, height = size
    mask = smooth(height, width)
    picture = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    seen = view(picture)[..., 0] / 255
    grid = (seen.shape[0] // 16, seen.shape[1] // 16)
    means = seen.reshape(grid[0], 16, grid[1], 16).mean(axis=(1, 3))
    found = coverage(mask, view.box(width, height), grid)
    assert np.abs(found - means).max() < 0.012
    moved = coverage(mask, tuple(edge + 1.5 for edge in view.box(width, height)), grid)  # type: ignore[arg-type]
    assert np.abs(moved - means).max() > 0.012


def test_nothing_in_view() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    assert not coverage(mask, (5, 0, 15, 10), (2, 2)).any()
    mask[:, :5] = True
    for masks in ("coverage", "paper"):
        assert not token_weights(mask, (5, 0, 15, 10), (2, 2), masks).any()
        assert not foreground(mask, (5, 0, 15, 10), (2, 2), masks).any()


def bicubic(distance: float) -> float:
    """Keys's kernel with a = -0.5."""
    x = abs(distance)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def axis_weights(low: float, high: float, n: int) -> tuple[int, Float]:
    """Weights of the pixels from floor(low) to ceil(high) in each of n tokens, antialiased."""
    first, last = math.floor(low), math.ceil(high)
    scale = (high - low) / n
    stretch = max(scale, 1.0)
    weights = np.array(
        [
            [bicubic((p + 0.5 - low - (i + 0.5) * scale) / stretch) for p in range(first, last)]
            for i in range(n)
        ]
    )
    return first, weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("box", [*BOXES[:3], BOXES[4]])
@pytest.mark.parametrize("grid", [(4, 6), (7, 3)])
def test_paper_against_the_kernel(box: Box, grid: tuple[int, int]) -> None:
    mask = smooth(23, 31)
    top, down = axis_weights(box[1], box[3], grid[0])
    left, across = axis_weights(box[0], box[2], grid[1])
    shown = np.zeros((down.shape[1], across.shape[1]))
    for h in range(shown.shape[0]):
        for w in range(shown.shape[1]):
            y, x = top + h, left + w
            shown[h, w] = 0 <= y < 23 and 0 <= x < 31 and mask[y, x]
    # Pillow goes over the rows first and keeps 8 bits between.
    rows = np.round((shown @ across.T).clip(0, 1) * 255)
    expected = (down @ rows).clip(0, 255)
    found = token_weights(mask, box, grid, "paper") * 255
    assert np.abs(found - expected).max() < 0.51
    assert (foreground(mask, box, grid, "paper") == (found > 0)).all()
    sure = np.abs(expected - 0.5) > 0.02
    assert (foreground(mask, box, grid, "paper") == (expected > 0.5))[sure].all()


def test_paper_crops_before_it_resizes() -> None:
    # What lies beside the crop has no influence, as in the research code.
    mask = a_mask(6, 32, 48)
    beside = mask.copy()
    beside[:, :8] = beside[:, 40:] = True
    box = (8.0, 0.0, 40.0, 32.0)
    want = Image.fromarray(mask[:, 8:40].astype(np.uint8) * 255).resize((8, 8))
    for each in (mask, beside):
        found = token_weights(each, box, (8, 8), "paper")
        np.testing.assert_array_equal(found, np.asarray(want) / 255)


def test_paper_foreground_reaches_beyond_the_mask() -> None:
    # The mask is one token exactly; the filter has its neighbours as foreground, too.
    mask = np.zeros((40, 40), dtype=bool)
    mask[16:24, 16:24] = True
    box = (0.0, 0.0, 40.0, 40.0)
    assert foreground(mask, box, (5, 5), "coverage").sum() == 1
    expected = np.zeros((5, 5), dtype=bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(foreground(mask, box, (5, 5), "paper"), expected)


@pytest.mark.parametrize(
    ("mask", "box", "grid", "message"),
    [
        (np.ones((2, 2)), (0, 0, 2, 2), (1, 1), "must be boolean of height x width, found float64"),
        (np.ones(4, dtype=bool), (0, 0, 2, 2), (1, 1), r"of shape \(4,\)"),
        (np.ones((2, 2), dtype=bool), (0, 0, 0, 2), (1, 1), "must span an area"),
        (np.ones((2, 2), dtype=bool), (0, 2, 2, 1), (1, 1), "must span an area"),
        (np.ones((2, 2), dtype=bool), (0, 0, math.nan, 2), (1, 1), "must span an area"),
        (np.ones((2, 2), dtype=bool), (-math.inf, 0, 2, 2), (1, 1), "must span an area"),
        (np.ones((2, 2), dtype=bool), (0, 0, 2, 2), (1, 0), "at least one row and column"),
    ],
)
def test_refused(mask: Mask, box: Box, grid: tuple[int, int], message: str) -> None:
    for masks in ("coverage", "paper"):
        with pytest.raises(AnalysisError, match=message):
            token_weights(mask, box, grid, masks)


@pytest.mark.parametrize("function", [token_weights, foreground])
def test_unknown_way(function: object) -> None:
    with pytest.raises(AnalysisError, match="masks 'area': must be one of coverage, paper"):
        function(np.ones((2, 2), dtype=bool), (0, 0, 2, 2), (1, 1), "area")  # type: ignore[operator]
