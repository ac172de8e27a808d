from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import transforms

from tests.data.pictures import noise
from vitfeat.data.loader import normalise
from vitfeat.data.views import SquareView
from vitfeat.errors import DataError

MODES = {
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "lanczos": transforms.InterpolationMode.LANCZOS,
}
RNG = np.random.default_rng(0)
SIZES = [(8, 8), (8, 100), (100, 8), (224, 224), (256, 256), (257, 256), (333, 500), (1, 3)]
SIZES += [(int(w), int(h)) for w, h in RNG.integers(8, 200, (25, 2))]


@pytest.mark.parametrize(
    ("side", "fraction", "interpolation"),
    [
        (224, 0.875, "bicubic"),
        # That of the paper's code.
        (224, 1.0, "bicubic"),
        (48, 1.0, "lanczos"),
        (32, 1.0, "bilinear"),
        (37, 0.9, "bicubic"),
        (14, 0.33, "bilinear"),
    ],
)
def test_squares_are_those_of_torchvision(side: int, fraction: float, interpolation: str) -> None:
    view = SquareView((side, side), fraction, interpolation)  # type: ignore[arg-type]
    oracle = transforms.Compose(
        [
            transforms.Resize(math.floor(side / fraction), MODES[interpolation], antialias=True),
            transforms.CenterCrop(side),
        ]
    )
    for place, (width, height) in enumerate(SIZES):
        image = noise(place, width, height)
        found = view(image)
        assert found.dtype == np.uint8
        assert found.shape == (side, side, 3)
        np.testing.assert_array_equal(found, np.asarray(oracle(image)), err_msg=str(image.size))


@pytest.mark.parametrize("fraction", [0.875, 0.9, 0.95, 0.96, 1.0])
def test_squares_are_those_of_timms_evaluation(fraction: float) -> None:
    oracle = create_transform((3, 224, 224), interpolation="bicubic", crop_pct=fraction)
    image = noise(0, 500, 375)
    seen = SquareView((224, 224), fraction)(image)
    cut = transforms.Compose(oracle.transforms[:2])(image)
    np.testing.assert_array_equal(seen, np.asarray(cut))


def test_resize_to() -> None:
    assert SquareView((224, 224), 0.875).resize_to == 256
    assert SquareView((224, 224), 1.0).resize_to == 224
    assert SquareView((384, 384), 0.9).resize_to == 426
    assert SquareView((224, 112), 0.875).covered == (256, 128)


@pytest.mark.parametrize("size", [(32, 32), (24, 48), (48, 24), (7, 90)])
@pytest.mark.parametrize("fraction", [1.0, 0.875, 0.5])
def test_the_resized_image_covers_and_the_crop_is_its_centre(
    size: tuple[int, int], fraction: float
) -> None:
    view = SquareView(size, fraction)
    for width, height in SIZES:
        new_width, new_height = view.resized(width, height)
        cover_height, cover_width = view.covered
        assert new_width >= cover_width
        assert new_height >= cover_height
        assert new_width == cover_width or new_height == cover_height
        left, top, right, bottom = view.box(width, height)
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= top < bottom <= height + 1e-9
        # The middle of the crop is the image's, but for half a pixel of the resized image.
        assert abs((left + right) / 2 - width / 2) <= width / new_width / 2 + 1e-9
        assert abs((top + bottom) / 2 - height / 2) <= height / new_height / 2 + 1e-9
        assert view(noise(0, width, height)).shape == (*size, 3)


def test_a_view_that_is_not_square_by_hand() -> None:
    # 40 x 30 covers 10 high and 20 wide when halved: 20 x 15; rows 2.5 -> 2 to 12 are kept.
    view = SquareView((10, 20), 1.0, "bilinear")
    image = noise(1, 40, 30)
    assert view.resized(40, 30) == (20, 15)
    assert view.box(40, 30) == (0, 4, 40, 24)
    half = image.resize((20, 15), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(view(image), np.asarray(half)[2:12])


def test_box_by_hand() -> None:
    # 100 x 50 -> 512 x 256; the crop 224 is at left 144, top 16; a pixel is 100 / 512 of one.
    box = SquareView((224, 224), 0.875).box(100, 50)
    assert box == pytest.approx((28.125, 3.125, 71.875, 46.875))


def test_box_marks_what_the_view_shows() -> None:
    view = SquareView((32, 32), 0.8)
    left, top, right, bottom = view.box(200, 120)
    image = Image.new("RGB", (200, 120))
    image.paste("white", (int(left), int(top), round(right) + 1, round(bottom) + 1))
    assert view(image)[2:-2, 2:-2].min() == 255
    image.paste("white", (0, 0, 200, 120))
    image.paste("black", (int(left) + 8, int(top) + 8, int(right) - 8, int(bottom) - 8))
    assert view(image)[0].min() == view(image)[-1].min() == 255


@pytest.mark.parametrize(
    "settings",
    [((224, 224), 1.01), ((224, 224), 0.0), ((0, 224), 1.0), ((224, 224), 1.0, "nearest")],
)
def test_settings_out_of_range(settings: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"crop_fraction|size|interpolation"):
        SquareView(*settings)  # type: ignore[arg-type]


def test_images_that_a_view_refuses() -> None:
    view = SquareView((224, 224))
    with pytest.raises(ValueError, match="RGB"):
        view(Image.new("L", (9, 9)))
    with pytest.raises(DataError, match="too elongated"):
        view(Image.new("RGB", (8, 100_000)))


def test_describe_is_json() -> None:
    described = SquareView((224, 112), 0.875, "bilinear").describe()
    assert json.loads(json.dumps(described)) == described
    assert described["size"] == [224, 112]


def test_normalise_is_that_of_torchvision() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    oracle = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    every = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    images = [every, np.array(noise(1, 16, 16)), np.array(noise(2, 16, 16))]
    batch = torch.from_numpy(np.stack(images))
    before = batch.clone()
    found = normalise(batch, mean, std)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert torch.equal(found, torch.stack([oracle(image) for image in images]))
    assert torch.equal(batch, before)


def test_normalise_refuses() -> None:
    good = torch.zeros((1, 4, 4, 3), dtype=torch.uint8)
    for batch in (good.float(), good[0], good.permute(0, 3, 1, 2)):
        with pytest.raises(ValueError, match="expected uint8 of shape"):
            normalise(batch, (0, 0, 0), (1, 1, 1))
    for mean, std in (((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 0, 1))):
        with pytest.raises(ValueError, match="three"):
            normalise(good, mean, std)
