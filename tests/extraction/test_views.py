"""Extraction in views of the images' own aspect, and of features under masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.store.filled import files
from vitfeat.data.annotations import RegionRow
from vitfeat.data.images import open_rgb
from vitfeat.data.index import Index
from vitfeat.data.loader import normalise
from vitfeat.data.regions import encode, mask_of
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import DenseView, PaddedView, SquareView, ViewSettings, in_words
from vitfeat.errors import ConfigError, DataError, ModelError
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.extraction.tiling import Tiling
from vitfeat.models.backbone import Backbone
from vitfeat.models.loading import load_backbone
from vitfeat.models.taps import collect
from vitfeat.numerics.coverage import token_weights
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore, image_tokens
from vitfeat.store.writer import StoreWriter

SIZES = [(48, 64), (48, 64), (64, 48), (70, 40), (33, 47), (90, 90)]
SETTINGS = Settings(
    taps=("spatial",), dtype="float32", device="cpu", threads=2, workers=0, batch_size=4
)
DENSE = ViewSettings(kind="dense", short_side=44)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aspects")
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def images(root: Path) -> Index:
    return build_index(DatasetSpec(name="d", layout="flat", root=root))


@pytest.fixture(scope="module")
def dino() -> Backbone:
    """Of a family whose own code takes any size."""
    return load_backbone("demo-dino")


@pytest.fixture(scope="module")
def mae() -> Backbone:
    return load_backbone("demo-mae")


Extracting = Callable[..., FeatureStore]


@pytest.fixture
def extracting(root: Path, images: Index, tmp_path: Path) -> Extracting:
    def run(backbone: Backbone, settings: Settings, **more: Any) -> FeatureStore:
        extract(backbone, images, root, tmp_path / "m.zarr", settings, **more)
        return open_store(tmp_path / "m.zarr")

    return run


def seen(root: Path, row: int, view: Any) -> torch.Tensor:
    return torch.from_numpy(view(open_rgb(root / f"{row}.png")))[None]


def tokens_of(backbone: Backbone, image: torch.Tensor) -> NDArray[np.float32]:
    """Return (layer, token, channel) of one uint8 image, prefix included."""
    found = collect(backbone, normalise(image, backbone.mean, backbone.std), ("tokens",))
    return found["tokens"][0].numpy()


def test_one_pass_at_the_size_of_each_image(
    dino: Backbone, extracting: Extracting, root: Path
) -> None:
    store = extracting(dino, SETTINGS.but(taps=("cls", "spatial"), view=DENSE))
    view = DenseView("short", 44, (4, 4))
    assert store.view == view
    for row, (width, height) in enumerate(SIZES):
        size = view.size_of(width, height)
        assert min(size) == 44
        assert dino.at_size is not None
        expected = tokens_of(dino.at_size(size), seen(root, row, view))
        for layer in range(6):
            np.testing.assert_allclose(
                image_tokens(store, row, layer),
                expected[layer, 1:].reshape(size[0] // 4, size[1] // 4, 64),
                atol=1e-4,
            )
            np.testing.assert_allclose(store["cls"][row, layer], expected[layer, 0], atol=1e-4)


def test_windows_where_a_model_has_one_size(
    mae: Backbone, extracting: Extracting, root: Path
) -> None:
    store = extracting(mae, SETTINGS.but(view=DENSE))
    view = DenseView("short", 44, (4, 4), (32, 32))
    assert store.view == view
    for row in range(len(SIZES)):
        image = seen(root, row, view)
        rows, columns = image.shape[1] // 4, image.shape[2] // 4
        expected = np.full((6, rows, columns, 64), np.nan, dtype=np.float32)
        # Token by token, the first window that has it.
        for top in dict.fromkeys(min(y, rows - 8) for y in range(0, rows, 8)):
            for left in dict.fromkeys(min(x, columns - 8) for x in range(0, columns, 8)):
                window = image[:, 4 * top : 4 * top + 32, 4 * left : 4 * left + 32]
                found = tokens_of(mae, window)[:, 1:].reshape(6, 8, 8, 64)
                for i in range(8):
                    for j in range(8):
                        if np.isnan(expected[0, top + i, left + j, 0]):
                            expected[:, top + i, left + j] = found[:, i, j]
        for layer in range(6):
            np.testing.assert_allclose(image_tokens(store, row, layer), expected[layer], atol=1e-4)


def test_tiling_by_hand() -> None:
    tiling = Tiling((3, 5), (2, 2), (1, 1))
    assert tiling.corners == [(0, 0), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]
    image = torch.arange(15).reshape(1, 3, 5, 1).expand(-1, -1, -1, 3)
    windows = tiling.cut(image)
    assert windows[2, ..., 0].tolist() == [[3, 4], [8, 9]]
    numbered = torch.arange(6)[:, None, None].expand(-1, 4, 1)
    assert tiling.join(numbered)[0, :, 0].reshape(3, 5).tolist() == [
        [0, 0, 1, 1, 2],
        [0, 0, 1, 1, 2],
        [3, 3, 4, 4, 5],
    ]


def test_padded_images_stand_side_by_side(
    mae: Backbone, extracting: Extracting, root: Path
) -> None:
    store = extracting(mae, SETTINGS.but(view=ViewSettings(kind="padded")))
    view = PaddedView((32, 32))
    assert store.view == view
    assert store["spatial"].shape == (6, 6, 8, 8, 64)
    for row in range(len(SIZES)):
        expected = tokens_of(mae, seen(root, row, view))
        np.testing.assert_allclose(
            np.asarray(store["spatial"][row]).reshape(6, 64, 64), expected[:, 1:], atol=1e-4
        )


def test_the_centre_token_s_attention(mae: Backbone, extracting: Extracting, root: Path) -> None:
    store = extracting(mae, SETTINGS.but(taps=("attention_centre",)))
    view = SquareView((32, 32), mae.entry.crop_fraction)
    batch = normalise(seen(root, 3, view), mae.mean, mae.std)
    attention = collect(mae, batch, ("attention",))["attention"][0]
    found = np.asarray(store["attention_centre"][3])
    np.testing.assert_allclose(found, attention[:, :, 1 + 4 * 8 + 4].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "entry_says", "expected", "said"),
    [
        (ViewSettings(), 0.5, SquareView((32, 32), 0.5), []),
        (
            ViewSettings(crop_fraction=1.0),
            0.5,
            SquareView((32, 32), 1.0),
            ["crop fraction 1.0 by the dataset's view, in the place of demo-mae's own 0.5"],
        ),
        (ViewSettings(crop_fraction=0.5), 0.5, SquareView((32, 32), 0.5), []),
        (
            ViewSettings(kind="padded", interpolation="lanczos"),
            1.0,
            PaddedView((32, 32), "lanczos"),
            ["interpolation lanczos by the dataset's view, in the place of demo-mae's own bicubic"],
        ),
        (
            ViewSettings(kind="dense", short_side=44, interpolation="bilinear"),
            1.0,
            DenseView("short", 44, (4, 4), (32, 32), "bilinear"),
            [
                "interpolation bilinear by the dataset's view, in the place of demo-mae's own "
                "bicubic"
            ],
        ),
    ],
)
def test_the_dataset_s_view_decides_over_the_model_s_own_and_it_is_said(
    mae: Backbone,
    extracting: Extracting,
    root: Path,
    settings: ViewSettings,
    entry_says: float,
    expected: Any,
    said: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = replace(mae, entry=mae.entry.but(crop_fraction=entry_says))
    store = extracting(own, SETTINGS.but(view=settings))
    assert store.view == expected
    tokens = tokens_of(own, seen(root, 5, expected)) if settings.kind != "dense" else None
    if tokens is not None:
        found = np.asarray(store["spatial"][5]).reshape(6, 64, 64)
        np.testing.assert_allclose(found, tokens[:, 1:], atol=1e-4)
    assert [note for note in store.attributes["notes"] if "by the dataset's view" in note] == said
    assert [line for line in caplog.messages if "by the dataset's view" in line] == said
    (line,) = [line for line in caplog.messages if line.startswith("view: ")]
    assert line == f"view: {in_words(expected.describe())}"
    assert line.startswith(f"view: {settings.kind}: ")
    assert line.endswith(f"; {expected.interpolation}")


def test_the_final_norm_is_the_model_s(dino: Backbone, extracting: Extracting) -> None:
    store = extracting(dino, SETTINGS.but(taps=("cls",)))
    assert store.final_norm is not None
    last = np.asarray(store["cls"][:, -1])
    norm: Any = dino.module.norm
    expected = norm(torch.from_numpy(last)).numpy()
    np.testing.assert_allclose(store.final_norm(last), expected, atol=1e-5)


# --- Regions ---


def annotate() -> list[RegionRow]:
    """Boxes: large, small as a pixel, a crowd, and one that the square view cuts off."""
    rows = []
    for number, (width, height) in enumerate(SIZES[:5]):
        boxes = [(3, 5, width - 4, height - 9, 0), (17, 20, 18, 21, 0), (0, 0, 30, 30, 1)]
        if number == 3:
            boxes.append((0, 4, 1, 20, 0))
        for left, top, right, bottom, crowd in boxes:
            mask = np.zeros((height, width), dtype=bool)
            mask[top:bottom, left:right] = True
            counts = encode(mask)
            row = RegionRow(f"{number}.png", "object", 1, "box", crowd, height, width, counts)
            rows.append(row)
    return rows


def shares(row: RegionRow, view: Any, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return how much of each token a box covers, by the corners of both."""
    rows, columns = np.nonzero(mask_of(row))
    mask = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    left, top, right, bottom = view.box(row.width, row.height)
    high, wide = (bottom - top) / grid[0], (right - left) / grid[1]
    found = np.zeros(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            y, x = top + i * high, left + j * wide
            down = min(mask[3], y + high) - max(mask[1], y)
            across = min(mask[2], x + wide) - max(mask[0], x)
            found[i, j] = max(down, 0) * max(across, 0) / (high * wide)
    return found


@pytest.mark.parametrize("kind", ["square", "padded", "one", "tiled"])
def test_features_are_pooled_by_coverage(
    dino: Backbone,
    mae: Backbone,
    extracting: Extracting,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = annotate()
    dense = kind in ("one", "tiled")
    view = DENSE if dense else ViewSettings(kind="square" if kind == "square" else "padded")
    settings = SETTINGS.but(taps=("spatial", "regions"), view=view)
    store = extracting(dino if kind == "one" else mae, settings, annotated=rows)
    numbers = store.region_numbers.tolist()
    assert all(not rows[number].crowd for number in numbers)
    kept = [i for i, r in enumerate(rows) if not r.crowd]
    # The strip at the left edge is outside of the square's crop alone.
    lost = [i for i in kept if i not in numbers]
    assert len(lost) == (1 if kind == "square" else 0)
    assert any(f"5 as crowds and {len(lost)} without" in line for line in caplog.messages)
    for entry, (number, image) in enumerate(zip(numbers, store.rows("regions"), strict=True)):
        grid = tuple(store.grid_shapes[image])
        share = shares(rows[number], store.view, grid)
        for layer in range(6):
            tokens = image_tokens(store, int(image), layer).astype(np.float64)
            expected = (share[..., None] * tokens).sum((0, 1)) / share.sum()
            np.testing.assert_allclose(store["regions"][entry, layer], expected, atol=1e-5)


def test_the_paper_s_masks_take_crowds(mae: Backbone, extracting: Extracting) -> None:
    rows = annotate()
    settings = SETTINGS.but(taps=("spatial", "regions"), masks="paper")
    store = extracting(mae, settings, annotated=rows)
    assert 2 in store.region_numbers
    entry = store.region_numbers.tolist().index(2)
    tokens = image_tokens(store, 0, 3)
    weights = token_weights(mask_of(rows[2]), store.view.box(*SIZES[0]), (8, 8), "paper")
    expected = (weights[..., None] * tokens).sum((0, 1)) / weights.sum()
    np.testing.assert_allclose(store["regions"][entry, 3], expected, atol=1e-5)


def test_a_store_tells_what_its_regions_are_from(
    mae: Backbone, root: Path, images: Index, tmp_path: Path
) -> None:
    out, rows = tmp_path / "m.zarr", annotate()
    settings = SETTINGS.but(taps=("spatial", "regions"))
    first = extract(mae, images, root, out, settings, annotated=rows)
    # Whoever asks for tokens alone is served.
    assert extract(mae, images, root, out, SETTINGS) == first
    for other, more in ((rows[:-1], "fingerprint"), (rows, "masks: coverage in the store")):
        changed = settings.but(masks="paper" if other is rows else "coverage")
        with pytest.raises(Exception, match=more):
            extract(mae, images, root, out, changed, annotated=other)


def test_an_interrupted_extraction_of_varying_grids_goes_on(
    dino: Backbone,
    root: Path,
    images: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vitfeat.store.layout._MAX_BLOCK", 2)
    settings = SETTINGS.but(taps=("cls", "spatial", "regions"), view=DENSE)
    rows = annotate()
    extract(dino, images, root, tmp_path / "whole.zarr", settings, annotated=rows)
    write = StoreWriter.write_block

    def once(self: StoreWriter, block: int, *args: Any, **more: Any) -> None:
        if block:
            raise KeyboardInterrupt
        write(self, block, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write_block", once)
        with pytest.raises(KeyboardInterrupt):
            extract(dino, images, root, tmp_path / "m.zarr", settings, annotated=rows)
    extract(dino, images, root, tmp_path / "m.zarr", settings, annotated=rows)
    assert files(tmp_path / "m.zarr") == files(tmp_path / "whole.zarr")


# --- What cannot be ---


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"taps": ("attention",)}, ConfigError, "the view dense has no attention; it has cls"),
        ({"taps": ("cls",)}, ConfigError, "cls of images in windows: every window has its own"),
        ({"limits": {"spatial": 2}}, ConfigError, "the view dense keeps all images"),
        (
            {"view": ViewSettings(kind="dense", short_side=28)},
            ConfigError,
            "pixels 28: below the model's own size of 32.*set a larger short_side",
        ),
        ({"taps": ("regions",)}, ConfigError, "the tap regions needs the dataset's table"),
    ],
)
def test_what_a_view_has_not(
    mae: Backbone,
    extracting: Extracting,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        extracting(mae, SETTINGS.but(**{"view": DENSE, **settings}))


def test_regions_that_no_token_sees(mae: Backbone, extracting: Extracting) -> None:
    settings = SETTINGS.but(taps=("regions",))
    with pytest.raises(DataError, match="none of 1 annotated regions has a token"):
        extracting(mae, settings, annotated=[r for r in annotate() if r.crowd][:1])


@pytest.mark.parametrize("order", [slice(None, None, -1), slice(0, 20)])
def test_a_table_of_other_images(mae: Backbone, extracting: Extracting, order: slice) -> None:
    rows = annotate()[order]
    if order.step is None:
        rows = [row._replace(image_id="other.png") for row in rows]
    with pytest.raises(DataError, match="which the index has not, or has elsewhere"):
        extracting(mae, SETTINGS.but(taps=("regions",)), annotated=rows)


def test_a_model_that_cannot_be_loaded_at_another_size(
    dino: Backbone, extracting: Extracting
) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded for images of 56 x 44.*passes: tiled"):
        extracting(replace(dino, at_size=None), SETTINGS.but(view=DENSE))


def test_parts_of_images_are_what_the_view_sees(
    mae: Backbone, root: Path, images: Index, tmp_path: Path
) -> None:
    crop = (10.0, 4.0, 42.0, 40.0)
    cropped = replace(images, crop=[crop, *[None] * 5])
    assert cropped.fingerprint != images.fingerprint
    extract(mae, cropped, root, tmp_path / "m.zarr", SETTINGS.but(taps=("cls",)))
    view = SquareView((32, 32), mae.entry.crop_fraction)
    part = open_rgb(root / "0.png").crop((10, 4, 42, 40))
    expected = tokens_of(mae, torch.from_numpy(view(part))[None])
    store = open_store(tmp_path / "m.zarr")
    np.testing.assert_allclose(store["cls"][0], expected[:, 0], atol=1e-4)
    cropped.write(tmp_path / "index.csv")
    assert Index.read(tmp_path / "index.csv").crop == cropped.crop
    assert cropped.seen_size(0) == (32, 36)
