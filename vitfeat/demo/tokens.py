"""The ViT's forward pass in the steps that masking and small crops need."""

from __future__ import annotations

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitfeat.demo.network import MEAN, STD

PATCH = 4


def project(network: VisionTransformer, images: Tensor) -> Tensor:
    """Normalise images in 0..1, (n, 3, h, w), and project their patches, (n, h * w / 16, d)."""
    mean = images.new_tensor(MEAN)[:, None, None]
    std = images.new_tensor(STD)[:, None, None]
    projected: Tensor = network.patch_embed.proj((images - mean) / std)
    return projected.flatten(2).transpose(1, 2)


def positions(network: VisionTransformer, side: int) -> Tensor:
    """Return positions of a square grid, (1, side ** 2, d), resampled (bicubic) if needed."""
    own = network.pos_embed[:, 1:]
    resampled: Tensor = resample_abs_pos_embed(own, [side, side], num_prefix_tokens=0)
    return resampled


def embed(network: VisionTransformer, images: Tensor) -> Tensor:
    """Return patch tokens with positions, (n, (s / 4) ** 2, d), of images in 0..1, (n, 3, s, s)."""
    return project(network, images) + positions(network, images.shape[-1] // PATCH)


def with_cls(network: VisionTransformer, patches: Tensor) -> Tensor:
    """Put the CLS token before patch tokens: ``(n, t, d)`` becomes ``(n, 1 + t, d)``."""
    cls = (network.cls_token + network.pos_embed[:, :1]).expand(len(patches), -1, -1)
    return torch.cat([cls, patches], dim=1)


def encode(network: VisionTransformer, patches: Tensor) -> Tensor:
    """Run CLS and some patch tokens, (n, t, d), through blocks and final norm: (n, 1 + t, d)."""
    encoded: Tensor = network.norm(network.blocks(with_cls(network, patches)))
    return encoded


def encode_cls(network: VisionTransformer, images: Tensor) -> Tensor:
    """Encode whole images and keep CLS: ``(n, 3, s, s)`` in 0..1 becomes ``(n, d)``."""
    return encode(network, embed(network, images))[:, 0]


def patchify(images: Tensor) -> Tensor:
    """Cut images, (n, c, s, s), into flat patches in the tokens' order: (n, s * s / 16, 16 c)."""
    n, c, s, _ = images.shape
    side = s // PATCH
    cells = images.reshape(n, c, side, PATCH, side, PATCH).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(n, side * side, c * PATCH * PATCH)
