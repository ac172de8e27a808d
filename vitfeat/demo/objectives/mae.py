"""MAE: reconstruct the masked three quarters of an image (He et al., 2022)."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Generator, Tensor, nn

from vitfeat.demo import tokens
from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import Batch
from vitfeat.demo.objectives.base import Objective, Recipe

MASKED = 0.75
DECODER_WIDTH = 32


class Mae(Objective):
    """The encoder sees CLS and the visible patches only; a light decoder fills in the rest."""

    recipe = Recipe(epochs=100, batch_size=128, learning_rate=1.5e-3)
    summary = (
        f"reconstruction of {MASKED:.0%} masked patches, normalised pixels, two-block decoder of "
        f"width {DECODER_WIDTH}, crops as the only augmentation"
    )
    source = "He et al., 2022"

    augmentation = Augmentation(area=(0.6, 1.0))

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__(backbone, images)
        pixels = 3 * tokens.PATCH**2
        self.to_decoder = nn.Linear(backbone.embed_dim, DECODER_WIDTH)
        self.mask_token = nn.Parameter(0.02 * torch.randn(DECODER_WIDTH))
        self.positions = nn.Parameter(
            0.02 * torch.randn(backbone.patch_embed.num_patches + 1, DECODER_WIDTH)
        )
        self.decoder = nn.Sequential(*(Block(DECODER_WIDTH, num_heads=4) for _ in range(2)))
        self.to_pixels = nn.Sequential(
            nn.LayerNorm(DECODER_WIDTH), nn.Linear(DECODER_WIDTH, pixels)
        )

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Mean squared error of normalised pixels over masked patches (unitless)."""
        views = self.augmentation(batch.images, generator)
        patches = tokens.embed(self.backbone, views)
        n, t, d = patches.shape
        visible, masked = random_mask(n, t, generator)
        seen = patches.gather(1, visible[..., None].expand(-1, -1, d))
        predicted = self._decode(tokens.encode(self.backbone, seen), visible, t)
        return pixel_loss(predicted, tokens.patchify(views), masked)

    def _decode(self, encoded: Tensor, visible: Tensor, t: int) -> Tensor:
        """Predict all ``t`` patches' pixels from the encoded CLS and visible tokens."""
        x = self.to_decoder(encoded)
        filled = self.mask_token.expand(len(x), t, -1)
        filled = filled.scatter(1, visible[..., None].expand(-1, -1, DECODER_WIDTH), x[:, 1:])
        decoded = self.decoder(torch.cat([x[:, :1], filled], dim=1) + self.positions)
        pixels: Tensor = self.to_pixels(decoded[:, 1:])
        return pixels


def random_mask(n: int, t: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Choose the visible quarter of every image's patches uniformly at random.

    Returns their positions, (n, t / 4), and what is masked, bool (n, t).
    """
    order = torch.rand(n, t, generator=generator).argsort(dim=1)
    visible = order[:, : t - round(MASKED * t)]
    return visible, torch.ones(n, t, dtype=torch.bool).scatter(1, visible, False)


def pixel_loss(predicted: Tensor, patches: Tensor, masked: Tensor) -> Tensor:
    """Return MAE's loss, the mean squared error over masked patches: `masked` is (n, t).

    Each true patch is normalised by its own mean and variance (He et al., 2022, 4.1).
    """
    mean = patches.mean(dim=2, keepdim=True)
    variance = patches.var(dim=2, keepdim=True)
    # Blank paper has no variance; the constant keeps its target at 0.
    target = (patches - mean) / (variance + 1e-6).sqrt()
    return (predicted - target).square().mean(dim=2)[masked].mean()
