from __future__ import annotations

from typing import Any

import pytest

from vitfeat.models.entry import ModelEntry, builtin_catalog
from vitfeat.models.shapes import Shape, guess_shape


def _true_shape(name: str, **args: Any) -> Shape:
    """Read the sizes off the model that timm builds, on a device that holds no numbers."""
    import timm
    import torch

    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0, **args)
    return Shape(
        depth=len(model.blocks),
        width=model.embed_dim,
        heads=model.blocks[0].attn.num_heads,
        patch=model.patch_embed.patch_size[0],
        image_size=model.patch_embed.img_size[0],
    )


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", {}),
        ("vit_small_patch8_224.dino", {}),
        ("vit_base_patch32_384.augreg_in21k_ft_in1k", {}),
        ("vit_large_patch16_224.mae", {}),
        ("vit_huge_patch14_224.mae", {}),
        ("vit_base_patch14_dinov2.lvd142m", {}),
        ("vit_large_patch14_reg4_dinov2.lvd142m", {}),
        ("vit_giant_patch14_dinov2.lvd142m", {}),
        ("vit_so400m_patch14_siglip_224", {}),
        ("beit_large_patch16_224", {}),
        ("vit_base_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8}),
    ],
)
def test_timm_names(name: str, args: dict[str, Any]) -> None:
    guess = guess_shape(ModelEntry(id="m", source="timm", name=name, args=args))
    assert guess == _true_shape(name.split(".")[0], **args)


@pytest.mark.parametrize(
    "name",
    [
        *("ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14-336-quickgelu", "ViT-H-14", "ViT-g-14"),
        *("ViT-bigG-14", "ViT-SO400M-14-SigLIP-384", "ViT-L-16-SigLIP-256"),
    ],
)
def test_open_clip_names(name: str) -> None:
    import open_clip

    vision = open_clip.get_model_config(name)["vision_cfg"]
    guess = guess_shape(ModelEntry(id="m", source="open_clip", name=name))
    assert guess.image_size == vision["image_size"]
    if "layers" in vision:  # a tower of open_clip's own; else timm's
        assert (guess.depth, guess.patch) == (vision["layers"], vision["patch_size"])
        # Rather too much: giants differ in their width.
        assert vision["width"] <= guess.width <= 1.1 * vision["width"]


@pytest.mark.parametrize(
    "entry", [e for e in builtin_catalog().values() if e.source == "timm"], ids=lambda e: e.id
)
def test_the_catalogue_is_planned_for(entry: ModelEntry) -> None:
    """Held to the library's own models, built without memory."""
    size = {} if entry.image_size is None else {"img_size": entry.image_size}
    true = _true_shape(entry.name, **entry.args, **size)
    guess = guess_shape(entry)
    assert (guess.depth, guess.patch, guess.image_size) == (
        true.depth,
        true.patch,
        true.image_size,
    )
    # Too large costs a scheduler a little room; too small costs the job.
    assert true.width <= guess.width <= 1.1 * true.width


@pytest.mark.parametrize(
    ("model_id", "sizes"),
    [
        ("clip-b32", (12, 768, 32, 224)),
        ("clip-b16", (12, 768, 16, 224)),
        ("clip-l14", (24, 1024, 14, 224)),
        ("clip-l14-336", (24, 1024, 14, 336)),
        ("noise-b16", (12, 768, 16, 224)),
    ],
)
def test_models_of_other_sources(model_id: str, sizes: tuple[int, int, int, int]) -> None:
    guess = guess_shape(builtin_catalog()[model_id])
    assert (guess.depth, guess.width, guess.patch, guess.image_size) == sizes


def test_a_demo_model_and_an_unknown_one() -> None:
    assert guess_shape(builtin_catalog()["demo-dino"]) == Shape(6, 64, 4, 4, 32)
    unknown = guess_shape(ModelEntry(id="m", source="timm", name="mystery"))
    assert unknown == Shape(depth=24, width=1024, heads=16, patch=14, image_size=224)


def test_the_entrys_own_image_size_wins() -> None:
    entry = ModelEntry(id="m", source="timm", name="vit_base_patch16_384", image_size=512)
    assert guess_shape(entry).image_size == 512


def test_costs_of_vit_b16() -> None:
    shape = Shape(depth=12, width=768, heads=12, patch=16, image_size=224)
    assert shape.tokens == 197
    # 85.8 million parameters and 17.6 GMACs are published for ViT-B/16.
    assert shape.parameters == pytest.approx(85.8e6, rel=0.01)
    assert shape.flops_per_image == pytest.approx(2 * 17.6e9, rel=0.05)


@pytest.mark.parametrize("value", ["x", 0, -1, [], {}, None, True, 1.5])
def test_arguments_that_make_no_sense_are_left_to_the_building(value: Any) -> None:
    args = dict.fromkeys(("depth", "embed_dim", "num_heads", "patch_size"), value)
    name = "vit_base_patch16_224"
    plain = guess_shape(ModelEntry(id="m", source="timm", name=name))
    assert guess_shape(ModelEntry(id="m", source="timm", name=name, args=args)) == plain
