from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from tests.figures.canvas import assert_readable
from vitfeat.analyses.attention.mosaic import (
    HIGH,
    WIDE,
    arranged,
    extent,
    mosaic,
    sheet_of,
)
from vitfeat.figures import overlay, style


def colour(level: float) -> tuple[int, ...]:
    found = colormaps[style.VALUE_COLOURS](round(min(max(level, 0), 1) * 255))
    return tuple(round(255 * part) for part in found[:3])


def levels(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 1, shape)


@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("scale", [1, 3])
def test_every_token_is_at_its_pixels(scale: int, bars: bool) -> None:
    given = levels(3, 2, 4, 5)
    shares = np.full((3, 2, 2), 0.25) if bars else None
    drawn = mosaic(given, scale, shares)
    # A map, a pixel, a bar of two pixels, four pixels; or a map and two pixels.
    down, across = 4 * scale + (7 if bars else 2), 5 * scale + 2
    assert drawn.pixels.shape == (3 * down - (4 if bars else 2), 2 * across - 2, 3)
    for (layer, head, y, x), level in np.ndenumerate(given):
        top, left = layer * down + y * scale, head * across + x * scale
        patch = drawn.pixels[top : top + scale, left : left + scale].reshape(-1, 3)
        assert {tuple(pixel) for pixel in patch.tolist()} == {colour(level)}
        place = drawn.place(layer, head, y, x)
        assert place == (left + scale / 2, top + scale / 2)
    assert tuple(drawn.pixels[0, 0].tolist()) == colour(given[0, 0, 0, 0])
    between = drawn.pixels[: 4 * scale, 5 * scale : 5 * scale + 2]
    assert (between == 255).all()


def test_levels_are_cut_off_and_nan_is_grey() -> None:
    drawn = mosaic(np.array([[[[-1.0, 0.0, 1.0, 2.0, np.nan]]]]), 1)
    found = [tuple(pixel) for pixel in drawn.pixels[0].tolist()]
    grey = tuple(round(255 * part) for part in to_rgb(style.NO_VALUE))
    assert found == [colour(0), colour(0), colour(1), colour(1), grey]


def test_bars_are_as_long_as_the_shares() -> None:
    shares = np.array([[[0.25, 0.5], [0.0, 0.0], [np.nan, np.nan]]])
    drawn = mosaic(np.zeros((1, 3, 2, 2)), 10, shares)
    row = drawn.pixels[2 * 10 + 1]
    kinds = {
        name: tuple(round(255 * part) for part in to_rgb(code))
        for name, code in overlay.BAR_COLOURS.items()
    }
    counted = [
        {name: (row[left : left + 20] == code).all(-1).sum() for name, code in kinds.items()}
        for left in (0, 22, 44)
    ]
    assert counted[0] == {"cls": 5, "registers": 10, "rest": 5}
    assert counted[1] == {"cls": 0, "registers": 0, "rest": 20}
    assert counted[2] == {"cls": 0, "registers": 0, "rest": 0}
    assert (row[44:] == 255).all()
    # White between the map and the bar.
    assert (drawn.pixels[20] == 255).all()


@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("grid", [(1, 1), (4, 7), (14, 14)])
@pytest.mark.parametrize("scale", [1, 5])
def test_extent_is_that_of_the_pixels(grid: tuple[int, int], scale: int, bars: bool) -> None:
    shares = np.zeros((2, 3, 2)) if bars else None
    drawn = mosaic(np.zeros((2, 3, *grid)), scale, shares)
    assert drawn.pixels.shape[:2] == extent((2, 3), grid, scale, bars=bars)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((6, 4), (8, 8)), ((12, 12), (14, 14)), ((24, 16), (14, 14)), ((32, 16), (16, 16))],
)
def test_mosaics_fit_where_they_can(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    across, scale = arranged(4, shape, grid, bars=True)
    assert across in (1, 2, 4)
    high, wide = (pixels / style.DPI for pixels in extent(shape, grid, scale, bars=True))
    assert across * wide < WIDE
    assert 4 / across * high < HIGH
    assert scale >= 2


def test_no_token_is_lost_in_the_largest_mosaics() -> None:
    assert arranged(4, (40, 24), (64, 64), bars=False)[1] == 1


@pytest.mark.parametrize(("across", "count"), [(1, 1), (2, 3), (3, 3)])
def test_pixels_of_the_file_are_those_of_the_mosaic(across: int, count: int) -> None:
    shown = [
        mosaic(levels(3, 2, 4, 5, seed=i), 7, label=f"{i}", title=f"Title {i}", detail="a detail")
        for i in range(count)
    ]
    with style.settings():
        around = {"scale": "attention", "end": 3.0, "beyond": True, "title": "T", "note": "n"}
        sheet, axes = sheet_of(shown, across, (0, 1, 2), **around)
        canvas = FigureCanvasAgg(sheet.figure)
        sheet.figure.set_dpi(style.DPI)
        canvas.draw()
        buffer = np.asarray(canvas.buffer_rgba())[..., :3]
    for one, ax in zip(shown, axes, strict=True):
        box = ax.get_window_extent()
        high, wide = one.pixels.shape[:2]
        top, left = buffer.shape[0] - round(box.y0) - high, round(box.x0)
        # The corner of the axes may be between two pixels.
        found = [
            np.array_equal(buffer[y : y + high, x : x + wide], one.pixels)
            for y in (top - 1, top, top + 1)
            for x in (left - 1, left, left + 1)
        ]
        assert found.count(True) == 1
        assert ax.get_label() == one.label


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((1, 1), (1, 1)),
        ((6, 4), (8, 8)),
        ((32, 16), (14, 14)),
        ((48, 25), (2, 2)),
        ((3, 25), (40, 3)),
        ((48, 2), (3, 40)),
    ],
)
def test_numbers_of_layers_and_heads_can_be_read(
    shape: tuple[int, int], grid: tuple[int, int]
) -> None:
    across, scale = arranged(2, shape, grid, bars=False)
    texts = {"title": "A long title of a mosaic", "detail": "and what it shows"}
    shown = [mosaic(np.zeros((*shape, *grid)), scale, label=name, **texts) for name in "ab"]
    with style.settings():
        scale_of = {"scale": "deviation,\n× uniform", "end": "percentile 98", "beyond": True}
        layers = range(5, 5 + shape[0])
        sheet, axes = sheet_of(shown, across, layers, **scale_of, title="T", note="n")
    assert_readable(sheet.figure)
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels[0] == "5"
    places = axes[0].get_yticks()
    for label, place in zip(labels, places, strict=True):
        assert place == shown[0].place(int(label) - 5, 0, (grid[0] - 1) / 2, 0)[1]
