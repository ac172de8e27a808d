from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from vitfeat.plots.images import overlay
from vitfeat.plots.images.overlay import Patches, drawn_size, mark, resized, share_bar


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


def test_pixels_mix_the_colour_of_the_value_with_the_grey_of_the_picture() -> None:
    crop = np.full((4, 8, 3), 200, dtype=np.uint8)
    found = overlay.overlay(crop, np.array([[0.25, 1.0]])).astype(float)
    # Grey is centred: a picture of one grey is medium grey.
    for x, value in ((0, 0.25), (4, 1.0)):
        colour = np.array(colormaps[overlay.COLOURS](round(value * 255))[:3])
        right = 255 * (overlay.ALPHA * colour + (1 - overlay.ALPHA) * 0.5)
        np.testing.assert_allclose(
            found[:, x : x + 4], np.broadcast_to(right, (4, 4, 3)), atol=1.01
        )


def test_the_colour_bar_shows_what_values_look_like_on_average() -> None:
    crop = picture(64, 64)
    shown = overlay.colours()
    for value in (0.0, 0.3, 1.0):
        mean = overlay.overlay(crop, np.full((4, 4), value)).mean((0, 1)) / 255
        np.testing.assert_allclose(mean, shown(round(value * 255))[:3], atol=0.01)


def test_lighter_pixels_stay_lighter_but_not_by_much() -> None:
    crop = np.zeros((8, 8, 3), dtype=np.uint8)
    crop[:, 4:] = 255
    found = overlay.overlay(crop, np.full((2, 2), 0.5)).astype(float)
    step = found[0, 7] - found[0, 0]
    # Black and white have a standard deviation of 0.5; it becomes 0.16.
    right = 255 * (1 - overlay.ALPHA) * 2 * overlay.CONTRAST
    np.testing.assert_allclose(step, right, atol=2)


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
    """Of a picture whose contrast is small, only the mean is moved."""
    crop = (picture(16, 16) // 16 + 100).astype(np.uint8)
    found = overlay.overlay(crop, np.zeros((1, 1)))[..., 0].astype(float)
    grey = np.asarray(Image.fromarray(crop).convert("L")).astype(float)
    right = (1 - overlay.ALPHA) * (127.5 + grey - grey.mean())
    np.testing.assert_allclose(found, right, atol=1.2)
