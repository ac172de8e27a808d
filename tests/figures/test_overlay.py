from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from tests.figures.test_style import VISION, lab, linear
from vitfeat.figures import overlay
from vitfeat.figures.overlay import Patches, drawn_size, mark, resized, share_bar


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def one_hot(grid: tuple[int, int], token: tuple[int, int]) -> np.ndarray:
    values = np.zeros(grid)
    values[token] = 1
    return values


@pytest.mark.parametrize(
    ("grid", "patch"),
    [((4, 4), (4, 4)), ((2, 5), (3, 3)), ((5, 2), (16, 16)), ((1, 3), (7, 7)), ((3, 2), (2, 5))],
)
def test_a_token_colours_the_pixels_of_its_patch_and_no_other(
    grid: tuple[int, int], patch: tuple[int, int]
) -> None:
    crop = picture(grid[0] * patch[0], grid[1] * patch[1])
    dark = overlay.overlay(crop, np.zeros(grid))
    for row in range(grid[0]):
        for column in range(grid[1]):
            lit = overlay.overlay(crop, one_hot(grid, (row, column)))
            changed = (lit != dark).any(-1)
            expected = np.zeros(crop.shape[:2], dtype=bool)
            for y in range(crop.shape[0]):
                for x in range(crop.shape[1]):
                    expected[y, x] = (y // patch[0], x // patch[1]) == (row, column)
            np.testing.assert_array_equal(changed, expected)


def test_pixels_mix_the_colour_of_the_value_with_the_pale_grey_of_the_picture() -> None:
    crop = np.full((4, 12, 3), 200, dtype=np.uint8)
    found = overlay.overlay(crop, np.array([[0.0, 0.25, 1.0]])).astype(float)
    grey = overlay.DARKEST + (overlay.LIGHTEST - overlay.DARKEST) * 200 / 255
    for x, value in ((0, 0.0), (4, 64 / 255), (8, 1.0)):
        place = overlay.LEAST_COLOUR + (1 - overlay.LEAST_COLOUR) * value
        colour = np.array(colormaps[overlay.COLOURS](place)[:3])
        weight = overlay.ALPHA * min(1, value / overlay.OPAQUE_FROM)
        right = 255 * (weight * colour + (1 - weight) * grey)
        np.testing.assert_allclose(found[:, x : x + 4], np.broadcast_to(right, (4, 4, 3)), atol=1.5)


def test_the_colour_bar_shows_what_values_look_like_on_average() -> None:
    crop = picture(64, 64)
    shown = overlay.colours()
    for value in (0.0, 0.3, 1.0):
        mean = overlay.overlay(crop, np.full((4, 4), value)).mean((0, 1)) / 255
        np.testing.assert_allclose(mean, shown(round(value * 255))[:3], atol=0.01)


def test_where_there_is_no_attention_the_picture_shows_no_darker_than_it_is() -> None:
    crop = picture(8, 8)
    found = overlay.overlay(crop, np.zeros((2, 2))).astype(float)
    grey = crop @ np.array(overlay.LUMA)
    assert (found[..., 0] >= overlay.LIGHTEST * grey - 1).all()
    # Three fifths of the picture's contrast are left.
    slope = np.polyfit(grey.ravel(), found[..., 0].ravel(), 1)[0]
    assert 0.5 < slope < 0.7


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("vision", VISION)
def test_attention_can_be_read_over_bright_and_over_dark(ground: int, vision: str) -> None:
    """No two of six levels are taken for one another, whatever lies below them."""
    crop = np.full((1, 6, 3), ground, dtype=np.uint8)
    (drawn,) = overlay.overlay(crop, np.linspace(0, 1, 6)[None])
    seen = [lab(VISION[vision] @ linear(to_hex(pixel / 255))) for pixel in drawn]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 8
    assert np.linalg.norm(seen[-1] - seen[0]) > 20


def test_many_maps_at_once_are_each_alone() -> None:
    crop = picture(12, 18)
    values = np.random.default_rng(1).random((2, 3, 2, 3))
    for smooth in (False, True):
        found = overlay.overlay(crop, values, smooth=smooth)
        assert found.shape == (2, 3, 12, 18, 3)
        for index in np.ndindex(2, 3):
            alone = overlay.overlay(crop, values[index], smooth=smooth)
            np.testing.assert_array_equal(found[index], alone)


def test_pixels_beyond_the_last_patch_stay_grey() -> None:
    # 2 x 3 patches of 4 pixels in 9 x 15: 1 and 3 pixels are left over.
    crop = picture(9, 15)
    found = overlay.overlay(crop, np.ones((2, 3)))
    patches = Patches((2, 3), (9, 15), (9, 15))
    assert patches.tokens(0).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, -1]
    assert patches.tokens(1).tolist() == [i // 5 for i in range(15)]
    grey = (found[..., 0] == found[..., 1]) & (found[..., 1] == found[..., 2])
    assert grey[8].all()
    assert not grey[:8].any()


@pytest.mark.parametrize(
    ("crop", "grid", "side", "drawn"),
    [
        # Every token 8 pixels: 14 x 14 of them.
        ((224, 224), (14, 14), 110, (112, 112)),
        ((224, 224), (16, 16), 118, (112, 112)),
        ((168, 280), (12, 20), 130, (72, 120)),
        # Small crops grow by whole factors.
        ((32, 32), (8, 8), 136, (128, 128)),
        ((28, 28), (7, 7), 20, (21, 21)),
        # At least a pixel for a token.
        ((518, 518), (37, 37), 10, (37, 37)),
    ],
)
def test_the_size_that_a_crop_is_drawn_at(
    crop: tuple[int, int], grid: tuple[int, int], side: float, drawn: tuple[int, int]
) -> None:
    assert drawn_size(crop, grid, side) == drawn
    counts = np.bincount(Patches(grid, crop, drawn).tokens(0))
    assert len(counts) == grid[0]
    assert len(set(counts.tolist())) == 1


def test_a_smaller_picture_shows_tokens_where_they_are() -> None:
    crop, grid = (224, 224), (14, 14)
    small = Patches(grid, crop, (112, 112))
    assert small.box((3, 5)) == (slice(24, 32), slice(40, 48))
    found = overlay.overlay(picture(112, 112), one_hot(grid, (3, 5)), crop)
    dark = overlay.overlay(picture(112, 112), np.zeros(grid), crop)
    rows, columns = np.nonzero((found != dark).any(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (24, 31, 40, 47)


def test_smooth_maps_have_each_token_s_value_at_its_centre() -> None:
    patches = Patches((3, 2), (15, 10), (15, 10))
    values = np.random.default_rng(0).random((3, 2))
    fine = patches.weights(0) @ values @ patches.weights(1).T
    # Patches of 5 pixels: the pixel in the middle of each is its centre.
    np.testing.assert_allclose(fine[2::5, 2::5], values)
    assert fine.min() >= values.min() - 1e-12
    assert fine.max() <= values.max() + 1e-12
    np.testing.assert_allclose(patches.weights(0).sum(1), 1)
    # Between two centres, linear; beyond the last, constant.
    np.testing.assert_allclose(fine[4, 2], 0.6 * values[0, 0] + 0.4 * values[1, 0])
    np.testing.assert_allclose(fine[0, 0], values[0, 0])


def test_pictures_keep_their_pixels_when_they_grow() -> None:
    small = picture(3, 5)
    np.testing.assert_array_equal(resized(small, (6, 10)), small.repeat(2, 0).repeat(2, 1))
    assert resized(small, (3, 5)) is small
    # Half the size: the mean of four pixels.
    large = resized(picture(8, 8), (4, 4)).astype(float)
    blocks = picture(8, 8).reshape(4, 2, 4, 2, 3).astype(float).mean((1, 3))
    # Pillow rounds along either axis.
    np.testing.assert_allclose(large, blocks, atol=1.01)


def test_the_box_is_around_the_token_and_not_on_it() -> None:
    patches = Patches((4, 4), (40, 40), (40, 40))
    before = picture(40, 40)
    marked = before.copy()
    mark(marked, patches, (1, 2))
    np.testing.assert_array_equal(marked[10:20, 20:30], before[10:20, 20:30])
    box = np.array([0x2B, 0xE8, 0xE8])
    for y, x in ((9, 25), (20, 25), (15, 19), (15, 30)):
        np.testing.assert_array_equal(marked[y, x], box)
    # No further than a few pixels.
    far = np.ones((40, 40), dtype=bool)
    far[7:23, 17:33] = False
    np.testing.assert_array_equal(marked[far], before[far])


def test_the_box_of_a_token_in_the_corner_is_as_far_as_there_is_room() -> None:
    patches = Patches((4, 4), (40, 40), (40, 40))
    for token in ((0, 0), (0, 3), (3, 0), (3, 3)):
        marked = np.full((40, 40, 3), 255, dtype=np.uint8)
        mark(marked, patches, token)
        rows, columns = patches.box(token)
        assert (marked[rows, columns] == 255).all()
        assert (marked != 255).any()


def test_the_bar_is_as_long_as_the_shares() -> None:
    bar = share_bar(100, 4, 0.25, 0.5)
    assert bar.shape == (4, 100, 3)
    colours = [tuple(int(v) for v in bar[0, x]) for x in (0, 24, 25, 74, 75, 99)]
    assert colours[0] == colours[1] != colours[2] == colours[3] != colours[4] == colours[5]
    for whole in (share_bar(50, 2, 1.0, 0.0), share_bar(50, 2, 0.0, 0.0)):
        assert len({tuple(pixel) for pixel in whole.reshape(-1, 3).tolist()}) == 1
    assert not np.array_equal(share_bar(50, 2, 1.0, 0.0), share_bar(50, 2, 0.0, 0.0))


def test_grey_is_pillows() -> None:
    crop = picture(16, 16)
    grey = np.asarray(Image.fromarray(crop).convert("L")).astype(float)
    right = 255 * overlay.DARKEST + (overlay.LIGHTEST - overlay.DARKEST) * grey
    np.testing.assert_allclose(overlay.pale(crop)[..., 2], right, atol=1.2)


def test_colours_end_at_a_percentile_of_each_map_or_of_all() -> None:
    maps = np.random.default_rng(0).random((3, 2, 7, 9)) ** 4
    for percentile in (50.0, 98.0, 100.0):
        own = overlay.ends(maps, percentile)
        assert own.shape == (3, 2, 1, 1)
        for index in np.ndindex(3, 2):
            assert own[(*index, 0, 0)] == np.percentile(maps[index], percentile)
        common = overlay.ends(maps, percentile, common=True)
        np.testing.assert_array_equal(
            common, np.full((3, 2, 1, 1), np.percentile(maps, percentile))
        )
    np.testing.assert_allclose(overlay.scaled(maps, own).max((-2, -1)), 1)


def test_one_outlier_does_not_take_the_scale() -> None:
    """A token with nearly all of the attention leaves the others their colours."""
    found = np.random.default_rng(0).uniform(0.001, 0.002, (14, 14))
    found[3, 4] = 0.9
    shown = overlay.scaled(found, overlay.ends(found, overlay.PERCENTILE))
    assert np.median(shown) > 0.5
    assert np.median(overlay.scaled(found, overlay.ends(found, 100))) < 0.002


def test_maps_of_few_tokens_or_none_have_an_end() -> None:
    """Where the percentile is 0 the maximum is the end; where nothing is attended to, none is."""
    few, none, absent = np.zeros((3, 14, 14))
    few[2, 2] = 0.3
    absent[:] = np.nan
    found = overlay.ends(np.stack([few, none, absent]), 98)
    assert found.ravel().tolist() == [0.3, 0, 0]
    assert (overlay.scaled(none, found[1]) == 0).all()
    assert np.isnan(overlay.scaled(absent, found[2])).all()
    one_hole = few.copy()
    one_hole[0, 0] = np.nan
    assert overlay.ends(one_hole, 100).item() == 0.3


def test_figures_say_where_colours_end() -> None:
    assert overlay.said_of_scale(98) == (
        "Colours end at percentile 98 of each map's values; larger ones have the last colour."
    )
    assert overlay.said_of_scale(100, common=True) == (
        "Colours end at the maximum of all values in the figure."
    )
