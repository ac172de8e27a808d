"""Views that keep an image's aspect, and the settings that choose a view."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import noise
from vitfeat.data.views import DenseView, PaddedView, View, ViewSettings, view_from
from vitfeat.errors import ConfigError, DataError

SIZES = [(8, 8), (8, 100), (100, 8), (64, 48), (37, 91), (224, 224), (1, 3), (333, 500)]
VIEWS = [
    PaddedView((32, 32)),
    PaddedView((24, 40), "bilinear"),
    PaddedView((32, 32), "lanczos"),
    DenseView("short", 48, (4, 4)),
    DenseView("short", 48, (4, 4), (32, 32)),
    DenseView("long", 96, (16, 8), interpolation="bilinear"),
]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_the_result_has_the_size_that_is_told(view: View) -> None:
    for number, (width, height) in enumerate(SIZES):
        found = view(noise(number, width, height))
        assert found.dtype == np.uint8
        assert found.shape == (*view.size_of(width, height), 3)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_view_comes_back_from_its_description(view: View) -> None:
    described = view.describe()
    assert json.loads(json.dumps(described)) == described
    assert view_from(described) == view


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("size", [(64, 48), (50, 90)])
def test_a_mark_is_where_the_box_says(view: View, size: tuple[int, int]) -> None:
    """Find the middle of a white square in the result, and map it back."""
    width, height = size
    image = Image.new("RGB", size)
    image.paste("white", (20, 12, 30, 22))
    found = view(image)[..., 0].astype(np.float64)
    left, top, right, bottom = view.box(width, height)
    ys, xs = np.mgrid[: found.shape[0], : found.shape[1]] + 0.5
    x = left + (found * xs).sum() / found.sum() / found.shape[1] * (right - left)
    y = top + (found * ys).sum() / found.sum() / found.shape[0] * (bottom - top)
    assert (x, y) == pytest.approx((25, 17), abs=0.3)


# --- Padded ---


def test_the_whole_image_is_in_the_middle_of_black() -> None:
    view = PaddedView((32, 32))
    image = Image.new("RGB", (64, 30), "white")
    # 32 x 15: 17 rows of padding, 8 above and 9 below.
    found = view(image)
    assert (found[8:23] == 255).all()
    assert not found[:8].any()
    assert not found[23:].any()
    assert view.box(64, 30) == (0, -16, 64, 48)


def test_a_square_is_resized_alone() -> None:
    image = noise(0, 50, 50)
    resized = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(PaddedView((32, 32))(image), resized)


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("size", [(64, 48), (37, 91), (500, 333), (333, 500), (50, 50)])
def test_the_padded_view_by_lanczos_is_that_of_the_paper(side: int, size: tuple[int, int]) -> None:
    """Bit for bit: the long side fitted, the short one rounded, half of what is left above."""
    image = noise(7, *size)
    long = max(size)
    width, height = (int(np.around(side * length / long)) for length in size)
    left, top = (side - width) // 2, (side - height) // 2
    expected = np.zeros((side, side, 3), dtype=np.uint8)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    expected[top : top + height, left : left + width] = np.asarray(resized)
    np.testing.assert_array_equal(PaddedView((side, side), "lanczos")(image), expected)


def test_the_aspect_is_kept_to_half_a_pixel() -> None:
    for width, height in SIZES:
        new_width, new_height = PaddedView((224, 224)).resized(width, height)
        assert max(new_width, new_height) == 224
        scale = 224 / max(width, height)
        assert abs(new_width - width * scale) <= 0.5 or new_width == 1
        assert abs(new_height - height * scale) <= 0.5 or new_height == 1


# --- Dense ---


@pytest.mark.parametrize(
    ("view", "size", "expected"),
    [
        # 640 x 480 with 448 in the place of 480: 597.3 wide, 37 patches of 16.
        (DenseView("short", 448, (16, 16)), (640, 480), (448, 592)),
        (DenseView("short", 448, (16, 16)), (480, 640), (592, 448)),
        (DenseView("short", 448, (14, 14)), (854, 480), (448, 784)),
        # 450 is no whole number of patches either.
        (DenseView("short", 450, (16, 16)), (450, 900), (896, 448)),
        (DenseView("long", 512, (16, 16)), (1024, 768), (384, 512)),
        # Exactly a whole number of patches, where floats may fall below: 49 / 7 * 0.29.
        (DenseView("short", 29, (1, 1)), (700, 100), (29, 203)),
        # No side is without a patch, nor smaller than a window.
        (DenseView("long", 64, (16, 16)), (1000, 8), (16, 64)),
        (DenseView("long", 64, (16, 16), (32, 32)), (1000, 8), (32, 64)),
    ],
)
def test_sizes_by_hand(view: DenseView, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert view.size_of(*size) == expected


def test_nothing_is_cut_off() -> None:
    image = noise(3, 70, 50)
    view = DenseView("short", 48, (4, 4))
    assert view.size_of(70, 50) == (48, 64)
    resized = np.asarray(image.resize((64, 48), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(view(image), resized)
    assert view.box(70, 50) == (0, 0, 70, 50)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("both", 48, (4, 4)), "side 'both'"),
        (("short", 3, (4, 4)), "pixels 3: a patch has 4"),
        (("short", 28, (4, 4), (32, 32)), "below the model's own size of 32"),
        (("short", 48, (4, 4), None, "nearest"), "interpolation 'nearest'"),
    ],
)
def test_dense_settings_out_of_range(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseView(*settings)


@pytest.mark.parametrize("settings", [((0, 32),), ((32, 32), "nearest")])
def test_padded_settings_out_of_range(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"size|interpolation"):
        PaddedView(*settings)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_images_that_a_view_refuses(view: View) -> None:
    with pytest.raises(ValueError, match="RGB"):
        view(Image.new("L", (9, 9)))


def test_a_strip_would_take_gigabytes() -> None:
    with pytest.raises(DataError, match="too elongated"):
        DenseView("short", 448, (16, 16))(Image.new("RGB", (8, 100_000)))


# --- Settings ---


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"kind": "round"}, "x.view.kind: found 'round'; allowed: square, padded, dense"),
        ({"knd": "dense"}, "x.view: unknown key 'knd'.*'kind'"),
        ({"kind": "padded", "short_side": 64}, "x.view.short_side: the view padded does not know"),
        ({"passes": "one"}, "x.view.passes: the view square does not know"),
        ({"kind": "dense", "crop_fraction": 1.0}, "x.view.crop_fraction: the view dense does not"),
        ({"crop_fraction": 0.0}, "x.view.crop_fraction: found 0.0; allowed: a number, > 0, ≤ 1"),
        ({"crop_fraction": 1.5}, "x.view.crop_fraction: found 1.5; allowed: a number, > 0, ≤ 1"),
        ({"crop_fraction": "all"}, "x.view.crop_fraction: found 'all' .*; allowed: a number, > 0"),
        ({"interpolation": "nearest"}, "x.view.interpolation: found 'nearest'; allowed: bicubic"),
        (
            {"kind": "dense", "short_side": 0},
            "x.view.short_side: found 0; allowed: a whole",
        ),
        ({"kind": "dense", "short_side": 8, "long_side": 9}, "x.view.long_side: give it or"),
        ({"kind": "dense", "passes": "two"}, "x.view.passes: found 'two'; allowed: auto, one"),
    ],
)
def test_settings_that_cannot_be(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViewSettings.checked("x.view.", mapping)


def test_settings_are_told_as_far_as_they_are_not_usual() -> None:
    assert ViewSettings().to_mapping() == {"kind": "square"}
    for mapping in (
        {"kind": "padded"},
        {"kind": "dense"},
        {"kind": "dense", "long_side": 64, "passes": "one"},
        {"kind": "square", "crop_fraction": 1.0},
        {"kind": "padded", "interpolation": "lanczos"},
    ):
        assert ViewSettings.checked("x.", mapping).to_mapping() == mapping
    assert ViewSettings(kind="dense").side == ("short", 448)
    assert ViewSettings(kind="dense", long_side=9).side == ("long", 9)
