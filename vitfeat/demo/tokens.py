"""The ViT's forward pass in the steps that masking and small crops need."""

from __future__ import annotations

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitfeat.demo.network import MEAN, STD

PATCH = 4


def project(network: VisionTransformer, images: Tensor) -> Tensor:
    """Normalise images and project their patches, without positions.

    Parameters
    ----------
    network
        Network of :func:`vitfeat.demo.network.build`.
    images
        Values in 0..1, shape ``(n, 3, h, w)``; sides are multiples of 4.

    Returns
    -------
    Tensor
        Patch embeddings, row by row, shape ``(n, h * w / 16, d)``.
    """
    mean = images.new_tensor(MEAN)[:, None, None]
    std = images.new_tensor(STD)[:, None, None]
    projected: Tensor = network.patch_embed.proj((images - mean) / std)
    return projected.flatten(2).transpose(1, 2)


def positions(network: VisionTransformer, side: int) -> Tensor:
    """Position embedding of a square grid, resampled (bicubic) when it is not the network's own.

    Parameters
    ----------
    network
        Network of :func:`vitfeat.demo.network.build`.
    side
        Patches along one side of the grid.

    Returns
    -------
    Tensor
        Shape ``(1, side ** 2, d)``.
    """
    own = network.pos_embed[:, 1:]
    resampled: Tensor = resample_abs_pos_embed(own, [side, side], num_prefix_tokens=0)
    return resampled


def embed(network: VisionTransformer, images: Tensor) -> Tensor:
    """Patch tokens with positions, ready for :func:`encode`.

    Parameters
    ----------
    network
        Network of :func:`vitfeat.demo.network.build`.
    images
        Values in 0..1, shape ``(n, 3, s, s)``; ``s`` is a multiple of 4.

    Returns
    -------
    Tensor
        Shape ``(n, (s / 4) ** 2, d)``.
    """
    return project(network, images) + positions(network, images.shape[-1] // PATCH)


def with_cls(network: VisionTransformer, patches: Tensor) -> Tensor:
    """Put the CLS token before patch tokens: ``(n, t, d)`` becomes ``(n, 1 + t, d)``."""
    cls = (network.cls_token + network.pos_embed[:, :1]).expand(len(patches), -1, -1)
    return torch.cat([cls, patches], dim=1)


def encode(network: VisionTransformer, patches: Tensor) -> Tensor:
    """Run CLS and the given patch tokens through all blocks and the final norm.

    Parameters
    ----------
    network
        Network of :func:`vitfeat.demo.network.build`.
    patches
        Tokens of :func:`embed`, all or some of them, shape ``(n, t, d)``.

    Returns
    -------
    Tensor
        Shape ``(n, 1 + t, d)``, CLS first.
    """
    encoded: Tensor = network.norm(network.blocks(with_cls(network, patches)))
    return encoded


def encode_cls(network: VisionTransformer, images: Tensor) -> Tensor:
    """Encode whole images and keep CLS: ``(n, 3, s, s)`` in 0..1 becomes ``(n, d)``."""
    return encode(network, embed(network, images))[:, 0]


def patchify(images: Tensor) -> Tensor:
    """Cut images into flat patches, in the order of the tokens.

    Parameters
    ----------
    images
        Shape ``(n, c, s, s)``; ``s`` is a multiple of 4.

    Returns
    -------
    Tensor
        Shape ``(n, (s / 4) ** 2, c * 16)``.
    """
    n, c, s, _ = images.shape
    side = s // PATCH
    cells = images.reshape(n, c, side, PATCH, side, PATCH).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(n, side * side, c * PATCH * PATCH)
