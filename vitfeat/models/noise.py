"""Noise in the place of a network: tokens and attention that have nothing to do with the image.

The baseline that Walmer et al. 2023 call "random". An untrained network, which still passes the
image on, is another one (``random-b16``).
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitfeat.errors import ModelError
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import NORMALISATIONS, ModelEntry

# Sizes of the published architectures (Dosovitskiy et al. 2021): depth, width, heads.
_SIZES = {"small": (12, 384, 6), "base": (12, 768, 12), "large": (24, 1024, 16)}


class _Block(nn.Module):
    """Hands attention on to where a tap reads it, and gives its tokens back."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"attn_drop": nn.Identity()})

    def forward(self, tokens: Tensor, attention: Tensor) -> Tensor:
        self.attn["attn_drop"](attention)
        return tokens


class _Noise(nn.Module):
    """Draws the tokens and attention of every block, anew for every image.

    An image's pixels seed its noise, together with the model's seed: the same image gets the same
    noise in every batch and order, different images get independent noise.
    """

    seed: Tensor

    def __init__(self, depth: int, width: int, heads: int, n_tokens: int, seed: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block() for _ in range(depth))
        self.sizes = (width, heads, n_tokens)
        # A buffer, so that the weights' fingerprint tells seeds apart.
        self.register_buffer("seed", torch.tensor(seed))

    def forward(self, images: Tensor) -> Tensor:
        width, heads, n_tokens = self.sizes
        generators = [self._generator(image) for image in images]
        tokens = images.new_empty((len(images), n_tokens, width))
        attention = images.new_empty((len(images), heads, n_tokens, n_tokens))
        for block in self.blocks:
            for row, generator in enumerate(generators):
                drawn = generator.standard_normal((n_tokens, width), dtype=np.float32)
                tokens[row] = torch.from_numpy(drawn)
                weights = generator.random((heads, n_tokens, n_tokens), dtype=np.float32)
                weights /= weights.sum(-1, keepdims=True)
                attention[row] = torch.from_numpy(weights)
            block(tokens, attention)
        return tokens

    def _generator(self, image: Tensor) -> np.random.Generator:
        # Rounded to pixel values, which are the same on every device.
        mean, std = (torch.tensor(v, device=image.device)[:, None, None] for v in _HALF)
        pixels = ((image.float() * std + mean) * 255).round().clamp(0, 255).byte()
        return np.random.default_rng(
            [int(self.seed), zlib.crc32(pixels.cpu().contiguous().numpy().data)]
        )


_HALF = NORMALISATIONS["half"]


def noise_backbone(entry: ModelEntry) -> Backbone:
    """Return a backbone that gives noise of a ViT's shapes.

    Tokens are drawn from the standard normal distribution. Attention is drawn uniformly from
    [0, 1) and every row divided by its sum, so that rows sum to 1; in the paper's code they do not.

    The entry's ``name`` is ``small``, ``base`` or ``large``; its ``args`` may give ``depth``,
    ``embed_dim``, ``num_heads`` and ``patch_size`` (16).
    """
    if entry.name not in _SIZES:
        raise ModelError(
            f"model {entry.id}: noise has no size {entry.name!r}; allowed: {', '.join(_SIZES)}"
        )
    if entry.normalisation_values() not in (None, _HALF):
        raise ModelError(f"model {entry.id}: noise takes no normalisation; remove the key")
    sizes: dict[str, Any] = dict(
        zip(("depth", "embed_dim", "num_heads"), _SIZES[entry.name], strict=True), patch_size=16
    )
    if unknown := set(entry.args) - set(sizes):
        raise ModelError(
            f"model {entry.id}: noise takes no argument {', '.join(sorted(unknown))}; allowed: "
            f"{', '.join(sizes)}"
        )
    for key, value in entry.args.items():
        if type(value) is not int or value < 1:
            raise ModelError(
                f"model {entry.id}: args.{key}: found {value!r}; a whole number above 0 is needed"
            )
    sizes |= entry.args
    image_size, patch = entry.input_size or (224, 224), int(sizes["patch_size"])
    grid = (image_size[0] // patch, image_size[1] // patch)
    if min(grid) < 1 or (grid[0] * patch, grid[1] * patch) != image_size:
        raise ModelError(
            f"model {entry.id}: images of {image_size[0]} x {image_size[1]} pixels are no whole "
            f"patches of {patch}; change image_size"
        )
    module = _Noise(
        sizes["depth"], sizes["embed_dim"], sizes["num_heads"], 1 + grid[0] * grid[1], entry.seed
    )
    return Backbone(
        entry=entry,
        module=module,
        forward=module,
        blocks=list(module.blocks),
        image_size=image_size,
        patch_size=(patch, patch),
        grid=grid,
        width=sizes["embed_dim"],
        heads=sizes["num_heads"],
        has_cls=True,
        n_prefix=1,
        mean=_HALF[0],
        std=_HALF[1],
        normalised_by="noise, whose seeds are the pixels",
    )
