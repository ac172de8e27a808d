"""Small relatives of published architectures, one of each kind that the taps must understand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry

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
        **changes,
    }
    return ModelEntry(**fields)


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
    """Attention of two heads whose queries, keys and values are the tokens themselves."""

    fused_attn = True

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, tokens: Tensor) -> Tensor:
        split = tokens.unflatten(-1, (2, -1)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(split, split, split, **self.options)
        return mixed.transpose(1, 2).flatten(2)


FAKE_TOKENS = 5


def fake_backbone(
    blocks: list[nn.Module], forward: Callable[[Tensor], Any] | None = None
) -> Backbone:
    """Give a backbone of five tokens of eight channels, read off the images' first row."""
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
        heads=2,
        has_cls=True,
        n_prefix=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
