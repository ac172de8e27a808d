"""Position embeddings of published weights on grids other than their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from tests.models import published, reference_positions, reference_vit
from tests.models.loaded import SMALL_OPEN_CLIP, assert_sees, entry_of, images, small_open_clip
from tests.models.published import SMALL, SMALL_CLIP, Size, save
from vitfeat.errors import ModelError
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone

VIT = "vit_base_patch16_224"
CLIP = "vit_base_patch32_clip_quickgelu_224"

NATIVE = (SMALL.grid, SMALL.grid)

# Larger, smaller, neither side as long as the other, and as many tokens as the native grid.
GRIDS = [(6, 6), (3, 3), (3, 7), (9, 5), (2, 8)]

WAYS = {
    "dino": reference_positions.like_dino,
    "mae": reference_positions.like_mae,
    "timm": reference_positions.like_timm,
    "google": reference_positions.like_google,
}

grids = pytest.mark.parametrize("grid", GRIDS, ids=[f"{h}x{w}" for h, w in GRIDS])


def _pixels(grid: tuple[int, int], size: Size = SMALL) -> list[int]:
    return [side * size.patch for side in grid]


def _resized(positions: Tensor, way: str, grid: tuple[int, int], n_first: int = 1) -> Tensor:
    """Fit positions (1, token, channel) of the native grid to another, in float64."""
    native = positions[0].double().numpy()
    return torch.from_numpy(
        reference_positions.with_prefix(native, NATIVE, grid, WAYS[way], n_first)
    )[None]


def _assert_positions(found: Tensor, expected: Tensor, within: float = 2e-6) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= within * max(1, expected.abs().max())


# --- The references themselves ---


@grids
def test_the_references_are_the_libraries_functions(grid: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(*NATIVE, 5))
    tensor = torch.from_numpy(values).permute(2, 0, 1)[None]
    scale = [(n + 0.1) / o for o, n in zip(NATIVE, grid, strict=True)]
    resized = {
        "dino": functional.interpolate(tensor, scale_factor=scale, mode="bicubic"),
        "mae": functional.interpolate(tensor, grid, mode="bicubic"),
        "timm": functional.interpolate(tensor, grid, mode="bicubic", antialias=True),
    }
    expected = {way: r[0].permute(1, 2, 0).numpy() for way, r in resized.items()}
    zoom = [n / o for o, n in zip(NATIVE, grid, strict=True)]
    expected["google"] = ndimage.zoom(values, (*zoom, 1), order=1)
    for way, function in WAYS.items():
        np.testing.assert_allclose(function(values, grid), expected[way], atol=1e-12)


@grids
def test_the_ways_differ_by_more_than_the_tests_allow(grid: tuple[int, int]) -> None:
    positions = published.plain()["pos_embed"]
    found = {way: _resized(positions, way, grid) for way in WAYS}
    for one, other in combinations(found, 2):
        assert (found[one] - found[other]).abs().max() > 1e-3, (one, other)


def test_beits_places_reach_as_far_as_the_new_grid() -> None:
    """The paper's own case: from 224 to 384 pixels, 27 offsets to 47."""
    places = reference_positions.beit_places(27, 47)
    assert len(places) == 27
    assert places[13] == 0
    assert places[14] == 1
    steps = np.diff(places[13:])
    np.testing.assert_allclose(steps[1:] / steps[:-1], steps[1] / steps[0])
    assert places[-1] == pytest.approx(23, abs=1e-3)


# --- The file's own grid ---

_CONTENTS: dict[str, tuple[str, Callable[[], Any], Callable[[Any], Tensor]]] = {
    "dino": ("d.pth", published.dino_backbone, lambda c: c["pos_embed"]),
    "mae": ("m.pth", published.mae, lambda c: c["model"]["pos_embed"]),
    "moco": (
        "m.pth.tar",
        published.moco,
        lambda c: c["state_dict"]["module.base_encoder.pos_embed"],
    ),
    "supervised": (
        "g.npz",
        published.google,
        lambda c: torch.from_numpy(c["Transformer/posembed_input/pos_embedding"]),
    ),
}


@pytest.mark.parametrize("family", _CONTENTS)
def test_positions_of_the_files_own_grid_are_untouched(family: str, tmp_path: Path) -> None:
    file, make, positions = _CONTENTS[family]
    path = save(tmp_path / file, make())
    module: Any = load_backbone(entry_of(path, VIT, family)).module
    assert torch.equal(module.pos_embed, positions(make()))


def test_beits_table_of_the_files_own_grid_is_untouched(tmp_path: Path) -> None:
    content = published.beit()
    module: Any = load_backbone(_beit_entry(save(tmp_path / "b.pth", content), NATIVE)).module
    table = content["model"]["rel_pos_bias.relative_position_bias_table"]
    assert torch.equal(module.rel_pos_bias.relative_position_bias_table, table)


# --- Learned and fixed embeddings ---


@grids
@pytest.mark.parametrize("way", WAYS)
def test_each_way_by_name(way: str, grid: tuple[int, int], tmp_path: Path) -> None:
    state = published.plain()
    path = save(tmp_path / "w.pth", state)
    entry = entry_of(path, VIT, "other", image_size=_pixels(grid), positions=way)
    backbone = load_backbone(entry)
    assert backbone.grid == grid
    assert backbone.image_size == tuple(_pixels(grid))
    expected = _resized(state["pos_embed"], way, grid)
    module: Any = backbone.module
    _assert_positions(module.pos_embed, expected)
    batch = images(SMALL, grid=grid)
    assert_sees(backbone, reference_vit.vit(state, batch.double(), SMALL.heads, expected), batch)


@grids
@pytest.mark.parametrize(
    ("family", "file", "content", "state", "way"),
    [
        ("dino", "d.pth", published.dino_backbone, published.dino_backbone, "dino"),
        ("dino", "d.pth", published.dino_full, published.dino_backbone, "dino"),
        ("mae", "m.pth", published.mae, lambda: published.mae()["model"], "mae"),
        ("supervised", "v.pth", published.plain, published.plain, "timm"),
        ("other", "v.pth", published.plain, published.plain, "timm"),
    ],
    ids=["dino", "dino-full", "mae", "supervised", "other"],
)
def test_each_family_has_its_way(
    family: str,
    file: str,
    content: Callable[[], Any],
    state: Callable[[], dict[str, Tensor]],
    way: str,
    grid: tuple[int, int],
    tmp_path: Path,
) -> None:
    path = save(tmp_path / file, content())
    backbone = load_backbone(entry_of(path, VIT, family, image_size=_pixels(grid)))
    expected = _resized(state()["pos_embed"], way, grid)
    batch = images(SMALL, grid=grid)
    seen = reference_vit.vit(state(), batch.double(), SMALL.heads, expected)
    assert_sees(backbone, seen, batch)


def test_a_name_wins_over_the_family(tmp_path: Path) -> None:
    state = published.dino_backbone()
    path = save(tmp_path / "d.pth", state)
    entry = entry_of(path, VIT, "dino", image_size=_pixels((3, 7)), positions="timm")
    module: Any = load_backbone(entry).module
    _assert_positions(module.pos_embed, _resized(state["pos_embed"], "timm", (3, 7)))


@grids
@pytest.mark.parametrize("family", ["moco", "other"])
def test_moco_computes_its_positions_anew(
    family: str, grid: tuple[int, int], tmp_path: Path
) -> None:
    """Rows in the first half of the channels, whatever the grid's shape.

    For a grid that is not square MoCo-v3's own code numbers the tokens column by column while they
    come row by row; no published model was ever run that way.
    """
    path = save(tmp_path / "m.pth.tar", published.moco())
    entry = entry_of(path, VIT, family, image_size=_pixels(grid), positions="moco")
    if family == "moco":
        entry = entry.but(positions=None)
    backbone = load_backbone(entry)
    sines = published.sincos_positions(SMALL.width, *grid, row_first=True)
    expected = torch.cat([torch.zeros(1, SMALL.width), sines])[None]
    module: Any = backbone.module
    _assert_positions(module.pos_embed, expected.double())
    batch = images(SMALL, grid=grid)
    state = published.moco_encoder()
    assert_sees(backbone, reference_vit.vit(state, batch.double(), SMALL.heads, expected), batch)


def test_learned_positions_are_never_replaced_by_mocos_sines(tmp_path: Path) -> None:
    """DINO's positions are not MoCo's: computing them anew would throw away what was learned."""
    path = save(tmp_path / "d.pth", published.dino_backbone())
    entry = entry_of(path, VIT, "other", image_size=_pixels((3, 7)), positions="moco")
    with pytest.raises(ModelError, match=r"d\.pth|positions"):
        load_backbone(entry)


@grids
@pytest.mark.parametrize("family", ["supervised", "other"])
def test_googles_arrays_are_resized_googles_way(
    family: str, grid: tuple[int, int], tmp_path: Path
) -> None:
    arrays = published.google()
    path = save(tmp_path / "g.npz", arrays)
    backbone = load_backbone(entry_of(path, VIT, family, image_size=_pixels(grid)))
    native = torch.from_numpy(arrays["Transformer/posembed_input/pos_embedding"])
    expected = _resized(native, "google", grid)
    batch = images(SMALL, grid=grid)
    assert_sees(backbone, reference_vit.google(arrays, batch.double(), expected), batch)


@grids
@pytest.mark.parametrize("layout", ["official", "transformers"])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_resizes_as_it_was_trained(
    registers: int, layout: str, grid: tuple[int, int], tmp_path: Path
) -> None:
    """DINO's way; the models with registers were made after it was corrected."""
    state = published.dinov2(registers=registers)
    content = state if layout == "official" else published.transformers_dinov2(state)
    path = save(tmp_path / "w.safetensors", content)
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    family = "dinov2-reg" if registers else "dinov2"
    entry = entry_of(path, name, family, image_size=_pixels(grid), args={"patch_size": SMALL.patch})
    expected = _resized(state["pos_embed"], "timm" if registers else "dino", grid)
    batch = images(SMALL, grid=grid)
    seen = reference_vit.vit(state, batch.double(), SMALL.heads, expected)
    assert_sees(load_backbone(entry), seen, batch)


@grids
def test_registers_under_dinov2s_family_resize_as_they_were_trained(
    grid: tuple[int, int], tmp_path: Path
) -> None:
    state = published.dinov2(registers=4)
    entry = entry_of(
        save(tmp_path / "w.pth", state),
        "vit_small_patch14_reg4_dinov2",
        "dinov2",
        image_size=_pixels(grid),
        args={"patch_size": SMALL.patch},
    )
    expected = _resized(state["pos_embed"], "timm", grid)
    batch = images(SMALL, grid=grid)
    seen = reference_vit.vit(state, batch.double(), SMALL.heads, expected)
    assert_sees(load_backbone(entry), seen, batch)


@grids
def test_both_first_tokens_of_a_distilled_deit_keep_their_positions(
    grid: tuple[int, int], tmp_path: Path
) -> None:
    content = published.deit_distilled()
    state = content["model"]
    path = save(tmp_path / "d.pth", content)
    name = "deit_base_distilled_patch16_224"
    entry = entry_of(path, name, "supervised", image_size=_pixels(grid), positions="mae")
    expected = _resized(state["pos_embed"], "mae", grid, n_first=2)
    batch = images(SMALL, grid=grid)
    seen = reference_vit.vit(state, batch.double(), SMALL.heads, expected)
    assert_sees(load_backbone(entry), seen, batch)


@grids
def test_positions_without_a_cls_token(grid: tuple[int, int], tmp_path: Path) -> None:
    state = published.ijepa_encoder()
    path = save(tmp_path / "i.pth.tar", published.ijepa())
    args = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    entry = entry_of(path, VIT, "ijepa", image_size=_pixels(grid), args=args, positions="timm")
    expected = _resized(state["pos_embed"], "timm", grid, n_first=0)
    batch = images(SMALL, grid=grid)
    seen = reference_vit.vit(state, batch.double(), SMALL.heads, expected)
    assert_sees(load_backbone(entry), seen, batch)


@grids
def test_rotary_positions_are_those_of_the_new_grid(grid: tuple[int, int], tmp_path: Path) -> None:
    state = published.dinov3(rounded=False)
    path = save(tmp_path / "d.pth", state)
    name = "vit_small_patch16_dinov3_qkvb"
    backbone = load_backbone(entry_of(path, name, "dinov3", image_size=_pixels(grid)))
    batch = images(SMALL, grid=grid)
    assert_sees(backbone, reference_vit.dinov3(state, batch.double(), SMALL.heads), batch)


# --- CLIP ---


@pytest.fixture(scope="module", autouse=True)
def open_clip_knows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with small_open_clip(tmp_path_factory.mktemp("open_clip")):
        yield


@grids
@pytest.mark.parametrize("library", ["open_clip", "timm"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_clip_on_other_grids(
    half: bool, library: str, grid: tuple[int, int], tmp_path: Path
) -> None:
    state = published.clip(half=half)
    path = save(tmp_path / "c.pt", state)
    if library == "timm":
        entry = entry_of(
            path,
            CLIP,
            "clip",
            SMALL_CLIP,
            image_size=_pixels(grid, SMALL_CLIP),
            args={"patch_size": SMALL_CLIP.patch},
        )
    else:
        fields = {
            "source": "open_clip",
            "name": SMALL_OPEN_CLIP,
            "family": "clip",
            "checkpoint": path,
            "image_size": _pixels(grid, SMALL_CLIP),
        }
        entry = ModelEntry.from_mapping("m", fields)
    backbone = load_backbone(entry)
    assert backbone.grid == grid
    expected = _resized(state["visual.positional_embedding"][None], "timm", grid)[0]
    batch = images(SMALL_CLIP, grid=grid)
    seen = reference_vit.clip(state, batch.double(), SMALL_CLIP.heads, expected)
    assert_sees(backbone, seen, batch)


# --- BEiT ---

# Neither side stays as it is: BEiT's code knows square grids alone, and says nothing of a side that
# does not change beside one that does.
BEIT_GRIDS = [(6, 6), (3, 3), (3, 7), (9, 5), (2, 8), (14, 14)]


def _beit_entry(path: str, grid: tuple[int, int], **changes: Any) -> ModelEntry:
    args = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token"}
    name = "beit_base_patch16_224"
    return entry_of(path, name, "beit", image_size=_pixels(grid), args=args, **changes)


@pytest.mark.parametrize("grid", BEIT_GRIDS, ids=[f"{h}x{w}" for h, w in BEIT_GRIDS])
@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_beits_table_is_fitted_beits_way(
    layout: str, grid: tuple[int, int], tmp_path: Path
) -> None:
    content = published.beit()
    state = content["model"]
    if layout == "transformers":
        path = save(tmp_path / "b.safetensors", published.transformers_beit(state))
    else:
        path = save(tmp_path / "b.pth", content)
    backbone = load_backbone(_beit_entry(path, grid))
    assert backbone.grid == grid
    table = state["rel_pos_bias.relative_position_bias_table"].double().numpy()
    expected = torch.from_numpy(reference_positions.like_beit(table, NATIVE, grid))
    module: Any = backbone.module
    # The published code seeks its factor to a millionth and no further.
    _assert_positions(module.rel_pos_bias.relative_position_bias_table, expected, within=1e-5)
    batch = images(SMALL, grid=grid)
    assert_sees(backbone, reference_vit.beit(state, batch.double(), SMALL.heads, expected), batch)


# --- Files of grids that are not square ---


def test_the_grid_of_a_file_that_is_not_square_must_be_told(tmp_path: Path) -> None:
    """15 positions are of no square; 16 of 2 rows by 8 columns look like a square and are none."""
    old, new = (3, 5), (4, 6)
    state = published.dino_backbone()
    state["pos_embed"] = torch.randn(1, 16, SMALL.width, generator=torch.Generator()) * 0.05
    path = save(tmp_path / "d.pth", state)
    with pytest.raises(ModelError, match="checkpoint_size"):
        load_backbone(entry_of(path, VIT, "dino", image_size=_pixels(new)))
    told = entry_of(path, VIT, "dino", image_size=_pixels(new), checkpoint_size=_pixels(old))
    module: Any = load_backbone(told).module
    native = state["pos_embed"][0].double().numpy()
    expected = reference_positions.with_prefix(native, old, new, WAYS["dino"])
    _assert_positions(module.pos_embed, torch.from_numpy(expected)[None])


def test_a_told_grid_wins_over_the_square_of_as_many_tokens(tmp_path: Path) -> None:
    old, new = (2, 8), NATIVE
    state = published.dino_backbone()
    path = save(tmp_path / "d.pth", state)
    same = entry_of(path, VIT, "dino", image_size=_pixels(old), checkpoint_size=_pixels(old))
    module: Any = load_backbone(same).module
    assert torch.equal(module.pos_embed, state["pos_embed"])
    other = entry_of(path, VIT, "dino", image_size=_pixels(new), checkpoint_size=_pixels(old))
    module = load_backbone(other).module
    native = state["pos_embed"][0].double().numpy()
    expected = reference_positions.with_prefix(native, old, new, WAYS["dino"])
    _assert_positions(module.pos_embed, torch.from_numpy(expected)[None])
