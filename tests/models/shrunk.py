"""Small relatives of published architectures, one of each kind that the taps must understand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import open_clip
import timm
import torch
from open_clip.model import _build_vision_tower
from torch import Tensor, nn

from tests.models.architectures import SMALL, Architecture
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.models.structure import from_open_clip

_SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}

# timm name, image size, prefix tokens, whether there is a CLS token. Grids are 4 x 4.
TIMM_KINDS: dict[str, tuple[str, int, int, bool]] = {
    "plain": ("vit_tiny_patch16_224", 64, 1, True),
    "registers": ("vit_small_patch14_reg4_dinov2", 56, 5, True),
    "no-cls": ("vit_base_patch16_siglip_224", 64, 0, False),
    "rope": ("eva02_tiny_patch14_224", 56, 1, True),
    "relative-bias": ("beit_base_patch16_224", 64, 1, True),
}


def timm_entry(kind: str = "plain", **changes: Any) -> ModelEntry:
    """Give the entry of a shrunk timm model, with other fields where asked."""
    name, image_size, _, _ = TIMM_KINDS[kind]
    fields = {
        "id": f"small-{kind}",
        "source": "timm",
        "name": name,
        "args": _SMALL,
        "image_size": image_size,
        # Of a file of weights nobody else says it.
        "normalisation": "half" if changes.get("checkpoint") else None,
        **changes,
    }
    return ModelEntry(**fields)


def build(architecture: Architecture) -> Backbone:
    """Build a shrunk architecture with stirred weights, in the library's own way."""
    entry = ModelEntry(
        id=architecture.id,
        source="open_clip" if architecture.source == "trunk" else architecture.source,
        name=architecture.name,
        normalisation="half",
    )
    small = {**SMALL, **architecture.args}
    if architecture.source == "timm":
        shrunk = {"args": small, "image_size": architecture.pixels}
        backbone = load_backbone(entry.model_copy(update=shrunk))
    else:
        small["img_size"] = architecture.pixels
        visual = _open_clip_tower(architecture, small)
        backbone = from_open_clip(entry, visual.requires_grad_(False))
    stir(backbone.module)
    return backbone


def _open_clip_tower(architecture: Architecture, small: dict[str, Any]) -> nn.Module:
    config: Any = open_clip.get_model_config(architecture.name)
    vision = config["vision_cfg"]
    if architecture.source == "trunk":
        # open_clip's settings have no word for the depth of a timm model.
        create = timm.create_model
        with mock.patch.object(timm, "create_model", lambda name, **k: create(name, **k | small)):
            return _build_vision_tower(32, vision)
    shrunk = {
        "layers": SMALL["depth"],
        "width": SMALL["embed_dim"],
        "head_width": SMALL["embed_dim"] // SMALL["num_heads"],
        "image_size": architecture.pixels,
        **architecture.args,
    }
    return _build_vision_tower(32, {**vision, **shrunk}, bool(config.get("quick_gelu")))


def noise(backbone: Backbone, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *backbone.image_size, generator=generator)


@torch.no_grad()
def stir(module: nn.Module, seed: int = 0) -> None:
    """Replace all weights by noise.

    Fresh biases and relative positions are zero: a tap that forgot them would pass.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        scale = 0.05 if weight.ndim < 2 or "pos" in name else weight[0].numel() ** -0.5
        normalises = ("norm" in name or "ln_" in name) and name.endswith("weight")
        offset = 1.0 if normalises else 0.0
        weight.copy_(torch.randn(weight.shape, generator=generator) * scale * 2 + offset)


class FakeBlock(nn.Module):
    """A block around an attention module."""

    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.attn(tokens)


class FakeAttention(nn.Module):
    """Attention whose queries, keys and values are the tokens themselves.

    Parameters
    ----------
    num_heads
        Heads.
    shared
        Neighbouring heads that share the keys and values of the first of them.
    options
        Passed on to PyTorch's function.
    """

    fused_attn = True

    def __init__(self, num_heads: int = 2, shared: int = 1, **options: Any) -> None:
        super().__init__()
        self.num_heads, self.shared, self.options = num_heads, shared, options

    def forward(self, tokens: Tensor) -> Tensor:
        split = tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        few = split[:, :: self.shared]
        mixed = nn.functional.scaled_dot_product_attention(split, few, few, **self.options)
        return mixed.transpose(1, 2).flatten(2)


class FakeBranches(nn.Module):
    """A block that attends in several modules side by side."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.attns = nn.ModuleList(FakeBlock(part) for part in parts)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.stack([branch(tokens) for branch in self.attns]).sum(0)


FAKE_TOKENS = 5


def fake_backbone(
    blocks: list[nn.Module], forward: Callable[[Tensor], Any] | None = None, heads: int = 2
) -> Backbone:
    """Give a backbone of five tokens of eight channels, read off the images' first pixels."""
    module = nn.Sequential(*blocks).eval()

    def embed(images: Tensor) -> Tensor:
        return images.flatten(1)[:, : FAKE_TOKENS * 8].unflatten(1, (FAKE_TOKENS, 8))

    run = forward or module
    return Backbone(
        entry=ModelEntry(id="fake", source="timm", name="fake"),
        module=module,
        forward=lambda images: run(embed(images)),
        blocks=blocks,
        image_size=(4, 8),
        patch_size=(2, 4),
        grid=(2, 2),
        width=8,
        heads=heads,
        has_cls=True,
        n_prefix=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
