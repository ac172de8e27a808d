"""Branches, norms and mean attention in stores: the numbers, and what is refused."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.extraction.pictures_folder import BLACK, make_backbone, spoil_black_images
from tests.models.architectures import ACCEPTED
from tests.models.residual_block import ResidualBlock
from tests.models.shrunk import build, fake_backbone
from vitfeat.data.index import Index
from vitfeat.errors import ModelError
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.store.arrays import NORMS_GROUP, RESIDUAL_TAPS
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.store.verify import verify

TAPS = (*RESIDUAL_TAPS, NORMS_GROUP, "attention_mean")
SETTINGS = Settings(taps=TAPS, batch_size=5, device="cpu", threads=2, workers=0)
NORMS = ("attn_skip", "attn_branch", "mlp_skip", "mlp_branch")


@pytest.fixture(scope="module")
def parts(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """What each block gets and adds, step by step in float64: (image, layer, token, channel)."""
    found: dict[str, list[Tensor]] = {name: [] for name in NORMS}
    arriving: list[Tensor] = []
    handle = backbone.blocks[0].register_forward_pre_hook(lambda _m, a: arriving.append(a[0]))
    with torch.no_grad():
        backbone.forward(images)
        handle.remove()
        x = arriving[0].double()
        for block in copy.deepcopy(list(backbone.blocks)):
            b: Any = block.double()
            found["attn_skip"].append(x)
            found["attn_branch"].append(b.attn(b.norm1(x)) * b.ls1.gamma)
            x = x + found["attn_branch"][-1]
            found["mlp_skip"].append(x)
            found["mlp_branch"].append(b.mlp(b.norm2(x)) * b.ls2.gamma)
            x = x + found["mlp_branch"][-1]
    return {name: torch.stack(tensors, 1) for name, tensors in found.items()}


@pytest.fixture(scope="module")
def stores(
    tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, index: Index, folder: Path
) -> dict[str, FeatureStore]:
    found = {}
    for dtype in ("float32", "float16"):
        out = tmp_path_factory.mktemp("residual") / f"{dtype}.zarr"
        extract(backbone, index, folder, out, SETTINGS.but(dtype=dtype))
        assert verify(out)[1] == []
        found[dtype] = open_store(out)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_stored_branches_are_those_of_the_blocks(
    stores: dict[str, FeatureStore], parts: dict[str, Tensor], dtype: str
) -> None:
    store = stores[dtype]
    of_tap = dict(zip(RESIDUAL_TAPS, ("attn_skip", "attn_branch", "mlp_branch"), strict=True))
    for tap, name in of_tap.items():
        expected = parts[name]
        close = {"rtol": 2**-10 if dtype == "float16" else 1e-4, "atol": 1e-5}
        for array, values in (
            ("cls", expected[:, :, 0]),
            ("registers", expected[:, :, 1:5]),
            ("spatial", expected[:, :, 5:].unflatten(2, (4, 4))),
        ):
            found = np.asarray(store[f"{tap}/{array}"][:])
            assert found.dtype == dtype
            np.testing.assert_allclose(found.astype(np.float64), values.numpy(), **close)


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_those_of_the_unrounded_tokens(
    stores: dict[str, FeatureStore], parts: dict[str, Tensor], name: str
) -> None:
    """Prefix tokens first, then the grid; the same whatever type the features are stored in."""
    found = np.asarray(stores["float32"][f"{NORMS_GROUP}/{name}"][:])
    assert found.dtype == np.float32
    expected = parts[name].square().sum(-1).sqrt().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    half = np.asarray(stores["float16"][f"{NORMS_GROUP}/{name}"][:])
    assert half.dtype == np.float32
    assert np.array_equal(found, half)


def test_mean_attention(stores: dict[str, FeatureStore], truth: tuple[Tensor, Tensor]) -> None:
    expected = truth[1].double().mean(2).numpy()
    single, half = (np.asarray(stores[d]["attention_mean"][:]) for d in ("float32", "float16"))
    assert (single.dtype, half.dtype) == (np.float32, np.float16)
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-7)
    # Averaged before it is rounded.
    assert np.array_equal(half, single.astype(np.float16))
    np.testing.assert_allclose(single.astype(np.float64).sum(-1), 1, atol=1e-5)


def test_norms_alone_need_no_features(
    backbone: Backbone, index: Index, folder: Path, tmp_path: Path, stores: dict[str, FeatureStore]
) -> None:
    settings = SETTINGS.but(taps=(NORMS_GROUP,), layers=[1])
    extract(backbone, index, folder, tmp_path / "m.zarr", settings)
    store = open_store(tmp_path / "m.zarr")
    assert store.array_names == tuple(f"{NORMS_GROUP}/{name}" for name in NORMS)
    for name in store.array_names:
        np.testing.assert_allclose(store[name][:, 0], stores["float32"][name][:, 1], rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["beit_base_patch16_224", "vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224"],
)
def test_other_kinds_of_blocks(index: Index, folder: Path, tmp_path: Path, name: str) -> None:
    backbone = build(next(a for a in ACCEPTED if a.id == name))
    backbone = replace(backbone, image_size=(48, 64))
    settings = SETTINGS.but(dtype="float32", taps=("spatial", *RESIDUAL_TAPS, NORMS_GROUP))
    extract(backbone, index, folder, tmp_path / "m.zarr", settings)
    store = open_store(tmp_path / "m.zarr")
    gets, attn, mlp = (np.asarray(store[f"{t}/spatial"][:], np.float64) for t in RESIDUAL_TAPS)
    output = np.asarray(store["spatial"][:], np.float64)
    bound = 2**-22 * (np.abs(gets) + np.abs(attn) + np.abs(mlp))
    assert (np.abs(gets + attn + mlp - output) <= bound).all()
    norms = np.asarray(store[f"{NORMS_GROUP}/mlp_skip"][:])[:, :, -12:].reshape(gets.shape[:4])
    np.testing.assert_allclose(norms, np.linalg.norm(gets + attn, axis=-1), rtol=1e-5)


def test_bf16_norms_are_of_what_the_pass_made(
    index: Index, folder: Path, tmp_path: Path, stores: dict[str, FeatureStore]
) -> None:
    """bfloat16 keeps 8 bits: the branches are off by up to a per cent, and sums add up to that."""
    settings = SETTINGS.but(precision="bf16", dtype="float32", taps=(*RESIDUAL_TAPS, NORMS_GROUP))
    backbone = make_backbone()
    extract(backbone, index, folder, tmp_path / "m.zarr", settings)
    store = open_store(tmp_path / "m.zarr")
    gets, attn = (np.asarray(store[f"{t}/cls"][:], np.float64) for t in RESIDUAL_TAPS[:2])
    for name, expected in (("attn_skip", gets), ("attn_branch", attn), ("mlp_skip", gets + attn)):
        norms = np.asarray(store[f"{NORMS_GROUP}/{name}"][:])
        np.testing.assert_allclose(norms[..., 0], np.linalg.norm(expected, axis=-1), rtol=1e-5)
        np.testing.assert_allclose(
            norms, np.asarray(stores["float32"][f"{NORMS_GROUP}/{name}"][:]), rtol=0.05
        )


# --- What cannot be stored ---


@pytest.fixture
def branching(backbone: Backbone) -> Iterator[Any]:
    """Set the end of a branch to a value in the spatial tokens of images that are black."""
    handles: list[Any] = []

    def do(value: float, end: str = "drop_path2", token: int = 9) -> None:
        module: Any = backbone.module
        seen: dict[int, Tensor] = {}

        def look(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[threading.get_ident()] = args[0].flatten(2).std(-1).amax(1) == 0

        def spoil(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[seen[threading.get_ident()].nonzero().flatten(), token] = value
            return output

        block: Any = backbone.blocks[1]
        handles.append(module.patch_embed.register_forward_pre_hook(look))
        handles.append(getattr(block, end).register_forward_hook(spoil))

    yield do
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("end", "tap"), [("drop_path1", "attn_branch"), ("drop_path2", "mlp_branch")]
)
def test_a_branch_that_float16_cannot_hold(
    backbone: Backbone,
    index: Index,
    folder: Path,
    tmp_path: Path,
    branching: Any,
    end: str,
    tap: str,
) -> None:
    branching(7e4, end)
    with pytest.raises(ModelError) as info:
        extract(backbone, index, folder, tmp_path / "m.zarr", SETTINGS.but(taps=(tap,)))
    assert str(info.value) == (
        f"model small-registers, image {index.image_id[BLACK]}, layer 1, tap {tap}: a value of "
        "magnitude 7e+04 does not fit float16 (at most 65504); set extraction.dtype: float32"
    )
    assert not (tmp_path / "m.zarr").exists()
    # Norms are float32 in any store, and hold it.
    extract(backbone, index, folder, tmp_path / "n.zarr", SETTINGS.but(taps=(NORMS_GROUP,)))
    norms = open_store(tmp_path / "n.zarr")[f"{NORMS_GROUP}/{tap}"][BLACK, 1]
    assert norms[9] == pytest.approx(7e4 * 48**0.5)


@pytest.mark.parametrize(("value", "words"), [(7e4, "does not fit"), (float("nan"), "hold NaN")])
def test_a_value_of_an_image_that_is_not_kept_does_not_matter(
    backbone: Backbone,
    index: Index,
    folder: Path,
    tmp_path: Path,
    branching: Any,
    value: float,
    words: str,
) -> None:
    branching(value)
    others = [name for row, name in enumerate(index.image_id) if row != BLACK]
    settings = SETTINGS.but(taps=("mlp_branch",), limits={"mlp_branch": others})
    extract(backbone, index, folder, tmp_path / "m.zarr", settings)
    assert verify(tmp_path / "m.zarr")[1] == []
    kept = settings.but(limits={"mlp_branch": [index.image_id[BLACK]]})
    with pytest.raises(ModelError, match=words) as info:
        extract(backbone, index, folder, tmp_path / "n.zarr", kept)
    assert f"image {index.image_id[BLACK]}, layer 1, tap mlp_branch" in str(info.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("taps", [("mlp_branch",), (NORMS_GROUP,)])
def test_nan_and_inf_name_the_image(
    backbone: Backbone,
    index: Index,
    folder: Path,
    tmp_path: Path,
    branching: Any,
    value: float,
    taps: tuple[str, ...],
) -> None:
    branching(value)
    with pytest.raises(ModelError) as info:
        extract(backbone, index, folder, tmp_path / "m.zarr", SETTINGS.but(taps=taps))
    assert str(info.value) == (
        f"model small-registers, image {index.image_id[BLACK]}, layer 1, tap {taps[0]}: the "
        "features hold NaN or inf; nothing is stored of them"
    )


def test_nan_in_attention_is_found_in_its_mean(index: Index, folder: Path, tmp_path: Path) -> None:
    backbone = make_backbone()
    handles = spoil_black_images(backbone, float("nan"), slice(0, 1), layer=0)
    settings = SETTINGS.but(taps=("attention_mean",))
    with pytest.raises(ModelError) as info:
        extract(backbone, index, folder, tmp_path / "m.zarr", settings)
    for handle in handles:
        handle.remove()
    assert f"image {index.image_id[BLACK]}, layer 1, tap attention_mean: " in str(info.value)


# --- Before anything is on disk ---


def _refused(backbone: Backbone, index: Index, folder: Path, out: Path, taps: Any) -> str:
    with pytest.raises(ModelError) as info:
        extract(backbone, index, folder, out, SETTINGS.but(taps=taps))
    assert not list(out.parent.iterdir())
    message = str(info.value)
    assert "\n" not in message
    assert message.endswith(
        "leave out the taps block_input, attn_branch, mlp_branch and residual_norms (the analysis "
        "residual), or the model"
    )
    return message


def test_a_model_that_adds_all_at_once_is_stored_without(
    index: Index, folder: Path, tmp_path: Path, backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    """As one without CLS is without `cls`: a config with such a model runs all the same."""
    parallel = build(next(a for a in ACCEPTED if a.id == "vit_base_patch16_xp_224"))
    assert (parallel.has_branches, backbone.has_branches) == (False, True)
    settings = SETTINGS.but(taps=("cls", *TAPS), limits={"attn_branch": 3})
    extract(parallel, index, folder, tmp_path / "m.zarr", settings)
    store = open_store(tmp_path / "m.zarr")
    assert store.array_names == ("cls", "attention_mean")
    assert not store.has_branches
    assert store.attributes["request"]["taps"] == ["cls", "attention_mean"]
    assert caplog.messages[0] == (
        "vit_base_patch16_xp_224 has no blocks that add attention and MLP to skips of their own: "
        "left out are block_input, attn_branch, mlp_branch, residual_norms"
    )
    with pytest.raises(ModelError, match=r"has none of the asked taps \(residual_norms\)"):
        extract(parallel, index, folder, tmp_path / "n.zarr", SETTINGS.but(taps=(NORMS_GROUP,)))


def test_a_store_says_that_its_model_has_branches(stores: dict[str, FeatureStore]) -> None:
    assert stores["float16"].attributes["has_branches"] is True
    assert stores["float16"].has_branches


class _Scaled(ResidualBlock):
    """What drop_path2 gives is not what is added."""

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path1(self.factors[0] * tokens)
        return tokens + 1.01 * self.drop_path2(self.factors[1] * tokens)


class _Third(ResidualBlock):
    """Something else is added, too, to a single token."""

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = super().forward(tokens)
        return torch.cat([tokens[:, :1] * 1.001, tokens[:, 1:]], 1)


class _InPlace(ResidualBlock):
    """The parts do add up, but the block's input is overwritten before its norm is taken."""

    def forward(self, tokens: Tensor) -> Tensor:
        attn = self.drop_path1(self.factors[0] * tokens)
        tokens += attn
        return tokens + self.drop_path2(self.factors[1] * tokens)


@pytest.mark.parametrize("kind", [_Scaled, _Third, _InPlace])
def test_a_block_that_does_not_add_up(
    index: Index, folder: Path, tmp_path: Path, kind: type[ResidualBlock]
) -> None:
    backbone = fake_backbone([ResidualBlock(), kind()])
    message = _refused(backbone, index, folder, tmp_path / "m.zarr", (NORMS_GROUP,))
    assert message.startswith(
        f"model fake: what layer 1 ({kind.__name__}) gets and what its branches add do not make "
        "its output, off by up to "
    )


def test_a_layer_that_is_not_asked_for_need_not_add_up(
    index: Index, folder: Path, tmp_path: Path
) -> None:
    backbone = fake_backbone([ResidualBlock(), _Scaled()])
    settings = SETTINGS.but(taps=(NORMS_GROUP,), layers="first")
    extract(backbone, index, folder, tmp_path / "m.zarr", settings)
    store = open_store(tmp_path / "m.zarr")
    skip, branch = (
        np.asarray(store[f"{NORMS_GROUP}/{n}"][:], np.float64) for n in ("attn_skip", "attn_branch")
    )
    np.testing.assert_allclose(branch, skip / 2, rtol=1e-6)
