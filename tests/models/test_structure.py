"""Networks that are nearly plain ViTs: what each must be refused by, whatever its name.

Whole architectures are in test_contract.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.transformer import Transformer
from open_clip.transformer import VisionTransformer as ClipTower
from timm.layers import PatchEmbed
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.models.shrunk import noise, stir
from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.models.structure import from_open_clip, from_timm
from vitfeat.models.taps import collect


def _vit(kind: type[VisionTransformer] = VisionTransformer, **more: Any) -> VisionTransformer:
    sizes = {"img_size": (24, 32), "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = kind(**{**sizes, "num_classes": 0, **more})
    stir(model)
    return model


def _described(model: nn.Module, **fields: Any) -> Backbone:
    entry = ModelEntry(id="m", source="timm", name="mine", **fields)
    half = (0.5, 0.5, 0.5)
    return from_timm(entry, model, mean=half, std=half, interpolation="bicubic")


def _reason(model: nn.Module) -> str:
    before = sum(len(m._forward_pre_hooks) for m in model.modules())
    with pytest.raises(ModelError) as info:
        _described(model)
    message = str(info.value)
    start = f"model m: {type(model).__name__} (mine) is not a plain ViT: "
    assert message.startswith(start)
    assert "\n" not in message
    assert sum(len(m._forward_pre_hooks) for m in model.modules()) == before
    return message.removeprefix(start)


def test_a_described_model_is_for_evaluation_and_has_no_hooks() -> None:
    model = _vit(patch_drop_rate=0.5).train()
    found = _described(model)
    assert (found.grid, found.n_tokens) == ((3, 4), 13)
    assert not any(m.training for m in model.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_describing_keeps_no_gradients() -> None:
    class Watched(VisionTransformer):
        def forward_features(self, x: Tensor, **_: Any) -> Tensor:
            modes.append(torch.is_grad_enabled())
            return super().forward_features(x)

    modes: list[bool] = []
    _described(_vit(Watched))
    assert modes == [False]


def test_the_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    model = _vit()
    torch.random.set_rng_state(before)
    _described(model)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_blocks_that_take_tokens_before_images() -> None:
    found = []
    for batch_first in (True, False):
        tower = ClipTower(
            image_size=(24, 32), patch_size=8, width=16, layers=2, heads=2, mlp_ratio=4.0
        )
        tower.transformer = Transformer(width=16, layers=2, heads=2, batch_first=batch_first)
        stir(tower)
        entry = ModelEntry(id="m", source="open_clip", name="mine", normalisation="half")
        backbone = from_open_clip(entry, tower)
        assert backbone.batch_first == batch_first
        found.append(collect(backbone, noise(backbone, 3)))
    for tap, tensor in found[0].items():
        assert len(tensor) == 3
        torch.testing.assert_close(found[1][tap], tensor, atol=1e-5, rtol=1e-4)


# --- Where tokens stand ---


class _LastCls(VisionTransformer):
    def _pos_embed(self, x: Tensor) -> Tensor:
        return super()._pos_embed(x).roll(-1, 1)


class _LastRegisters(VisionTransformer):
    def _pos_embed(self, x: Tensor) -> Tensor:
        cls, rest = super()._pos_embed(x).split([1, 4 + self.patch_embed.num_patches], 1)
        return torch.cat([cls, rest.roll(-4, 1)], 1)


class _ByColumns(PatchEmbed):
    def forward(self, x: Tensor) -> Tensor:
        grid = super().forward(x).unflatten(1, self.grid_size)
        return grid.transpose(1, 2).flatten(1, 2)


class _Mirrored(PatchEmbed):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(1)


class _Windowed(PatchEmbed):
    """Two by two patches after each other, as vision encoders of language models have them."""

    def forward(self, x: Tensor) -> Tensor:
        grid = super().forward(x).unflatten(1, (2, 2, 2, 2))
        return grid.transpose(2, 3).flatten(1, 4)


class _Overlapping(PatchEmbed):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        width = options["embed_dim"]
        self.proj = nn.Conv2d(3, width, kernel_size=16, stride=8, padding=4)


@pytest.mark.parametrize("img_size", [(24, 32), 8])
def test_prefix_tokens_behind_the_grid_are_refused(img_size: Any) -> None:
    expected = "the tokens before its grid change with the image"
    assert _reason(_vit(_LastCls, img_size=img_size)) == expected
    assert _reason(_vit(_LastRegisters, reg_tokens=4, img_size=img_size)) == expected


@pytest.mark.parametrize("order", [_ByColumns, _Mirrored, _Windowed])
@pytest.mark.parametrize("class_token", [True, False])
def test_another_order_of_the_grid_is_refused(order: type[PatchEmbed], class_token: bool) -> None:
    pool = "token" if class_token else "avg"
    model = _vit(img_size=32, embed_layer=order, class_token=class_token, global_pool=pool)
    assert "do not stand in the order of its grid, row by row" in _reason(model)


@pytest.mark.parametrize("seed", [0, 1])
def test_behind_convolutions_a_token_may_answer_most_to_another_patch(seed: int) -> None:
    """As of this network before it is trained: it is no reason to refuse it."""
    entry = ModelEntry(
        id="m", source="timm", name="vitamin_small_224", args={"depth": 1}, seed=seed
    )
    assert load_backbone(entry).grid == (14, 14)


def test_patches_that_overlap_are_in_order() -> None:
    assert _described(_vit(embed_layer=_Overlapping)).grid == (3, 4)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_networks_that_answer_to_nothing_are_described(value: float) -> None:
    """Bad weights are the extraction's to report: it names image and layer."""
    model = _vit()
    nn.init.constant_(model.patch_embed.proj.weight, value)
    assert _described(model).grid == (3, 4)


# --- What the network tells of itself ---


def test_prefix_tokens_that_are_not_accounted_for() -> None:
    model = _vit()
    model.num_prefix_tokens = 2
    assert _reason(model) == "it tells of 2 prefix tokens and has 1 cls_token"
    model = _vit(class_token=False, global_pool="avg")
    model.num_prefix_tokens = 1
    assert _reason(model) == "it tells of 1 prefix tokens and has none"


def test_two_cls_tokens() -> None:
    model = _vit(reg_tokens=1)
    model.cls_token, model.reg_token = nn.Parameter(torch.randn(1, 2, 16)), None
    assert _reason(model) == "it tells of 2 prefix tokens and has 2 cls_token"


def test_tokens_that_join_later() -> None:
    class Late(VisionTransformer):
        def _pos_embed(self, x: Tensor) -> Tensor:
            return super()._pos_embed(x)[:, 2:]

    reason = _reason(_vit(Late, reg_tokens=1))
    assert reason.startswith("its first block gets the grid without the 2 prefix tokens")


def test_tokens_that_nothing_explains() -> None:
    class More(VisionTransformer):
        def _pos_embed(self, x: Tensor) -> Tensor:
            return torch.cat([super()._pos_embed(x), x], 1)

    reason = _reason(_vit(More))
    assert reason.startswith("its first block gets (4, 25, 16), not (4, 13, 16): 4 images, ")


def test_different_numbers_of_heads() -> None:
    model = _vit()
    model.blocks[1] = _vit(num_heads=4).blocks[1]
    assert _reason(model) == "its layers have different numbers of heads (2, 4)"


def test_a_block_without_attention() -> None:
    model = _vit()
    model.blocks[1] = nn.Linear(16, 16)
    assert _reason(model) == "layer 1 (Linear) has no attention that vitfeat knows"


def test_blocks_of_different_strides() -> None:
    model = _vit()
    model.feature_info[1]["reduction"] = (16, 16)
    assert _reason(model) == "its layers see grids of different sizes (one token for 8, 16 pixels)"


def test_windows() -> None:
    model = _vit()
    model.blocks[0].window_size = 0  # which means the whole grid
    assert _described(model).depth == 2
    model.blocks[1].window_size = 7
    assert _reason(model) == "its blocks attend within windows of 7 tokens"


@pytest.mark.parametrize("blocks", [None, nn.ModuleList(), nn.ModuleDict()])
def test_no_stack_of_blocks(blocks: Any) -> None:
    model = _vit()
    model.blocks = blocks
    assert _reason(model) == "it has no one stack of blocks"


def test_no_embedding_of_patches() -> None:
    model = _vit()
    model.patch_embed = nn.Conv2d(3, 16, 8, 8)
    assert _reason(model) == "it has no one embedding of patches"


def test_blocks_that_a_pass_leaves_out() -> None:
    class Around(VisionTransformer):
        def forward_features(self, x: Tensor, **_: Any) -> Tensor:
            return self.patch_embed(x)

    assert _reason(_vit(Around)) == "its pass does not go through its blocks"


def test_a_network_that_does_not_run() -> None:
    model = _vit()
    model.pos_embed = nn.Parameter(torch.randn(1, 7, 16))
    assert _reason(model).startswith("it does not run on images of (24, 32) pixels: ")


def test_images_smaller_than_a_patch() -> None:
    model = _vit(dynamic_img_size=True)
    model.patch_embed.img_size = (4, 32)
    assert _reason(model) == "images of (4, 32) pixels hold no patch of (8, 8)"


# --- The size of images ---


def _any_size() -> NaFlexVit:
    config = NaFlexVitCfg(patch_size=8, embed_dim=16, depth=1, num_heads=2, class_token=False)
    config.global_pool = "avg"
    model = NaFlexVit(config, num_classes=0)
    stir(model)
    return model


@pytest.mark.parametrize(
    ("fields", "published", "grid"),
    [
        ({"image_size": 32}, None, (4, 4)),
        ({"image_size": [24, 32]}, None, (3, 4)),
        ({}, (3, 24, 32), (3, 4)),
    ],
)
def test_a_network_for_any_size_gets_one(
    fields: dict[str, Any], published: Any, grid: tuple[int, int]
) -> None:
    model = _any_size()
    if published:
        model.default_cfg = {"input_size": published}
    found = _described(model, **fields)
    assert found.grid == grid
    assert found.image_size == (8 * grid[0], 8 * grid[1])


def test_a_network_for_any_size_without_one() -> None:
    assert _reason(_any_size()) == "nothing tells the size of its images; set image_size"
