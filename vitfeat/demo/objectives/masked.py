"""Objectives of masked patches: MAE fills in their pixels, BEiT names their codes."""

from __future__ import annotations

import math

import torch
from sklearn.cluster import MiniBatchKMeans
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from vitfeat.demo import tokens
from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import Batch
from vitfeat.demo.objectives.base import Objective, Recipe, sincos_positions

MAE_MASKED = 0.75
DECODER_WIDTH = 32

CODES = 128
CODEBOOK_SEED = 0
BEIT_MASKED = 0.4
SMALLEST_BLOCK = 4
LARGEST_BLOCK = 16
ASPECT = 0.3


class Mae(Objective):
    """The encoder sees CLS and the visible patches only; a light decoder fills in the rest."""

    recipe = Recipe(epochs=100, batch_size=128, learning_rate=1.5e-3)
    summary = (
        f"reconstruction of {MAE_MASKED:.0%} masked patches, normalised pixels, two-block decoder "
        f"of width {DECODER_WIDTH}, crops as the only augmentation"
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
    visible = order[:, : t - round(MAE_MASKED * t)]
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


class Beit(Objective):
    """Masked patches give way to a mask token; their codes are to be named."""

    recipe = Recipe(epochs=50, batch_size=128, learning_rate=1.5e-3)
    summary = (
        f"naming the codes of {BEIT_MASKED:.0%} of the patches, masked in blocks; {CODES} codes by "
        f"k-means (seed {CODEBOOK_SEED}) over the patches of the training images; "
        "positions started at sines and cosines"
    )
    source = "Bao et al., 2022"

    codebook: Tensor

    augmentation = Augmentation(area=(0.7, 1.0), rotation=5.0)

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__(backbone, images)
        # Masked tokens differ by position alone, so positions must be telling from the start.
        sincos_positions(backbone)
        self.mask_token = nn.Parameter(0.02 * torch.randn(backbone.embed_dim))
        self.to_codes = nn.Linear(backbone.embed_dim, CODES)
        self.register_buffer("codebook", fit_codebook(images))

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Cross entropy of the masked patches' codes, in nats."""
        views = self.augmentation(batch.images, generator)
        side = views.shape[-1] // tokens.PATCH
        masked = torch.stack([block_mask(side, generator) for _ in range(len(views))]).flatten(1)
        projected = tokens.project(self.backbone, views)
        hidden = torch.where(masked[..., None], self.mask_token, projected)
        patches = hidden + tokens.positions(self.backbone, side)
        encoded = tokens.encode(self.backbone, patches)[:, 1:]
        targets = nearest_code(tokens.patchify(views[:, :1])[masked], self.codebook)
        return functional.cross_entropy(self.to_codes(encoded[masked]), targets)


def fit_codebook(images: Tensor) -> Tensor:
    """Cluster the grey patches of images by k-means to centroids, (128, 16).

    The fallback for BEiT's discrete VAE; images are in 0..1, all channels alike.
    """
    patches = tokens.patchify(images[:, :1]).flatten(0, 1).numpy()
    clusters = MiniBatchKMeans(CODES, random_state=CODEBOOK_SEED, n_init=1, batch_size=4096)
    return torch.from_numpy(clusters.fit(patches).cluster_centers_).to(images.dtype)


def nearest_code(patches: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest centroid (Euclidean), patches ``(m, p)`` to indices ``(m,)``."""
    # |x - c|^2 without the term that all centroids share.
    return (codebook.square().sum(dim=1) - 2 * patches @ codebook.T).argmin(dim=1)


def block_mask(side: int, generator: Generator) -> Tensor:
    """Mask rectangles of a grid until the ratio is reached (Bao et al., 2022, algorithm 1).

    The last is cut, so that every image has ``round(0.4 * side ** 2)`` masked patches.
    """
    wanted = round(BEIT_MASKED * side * side)
    mask = torch.zeros(side, side, dtype=torch.bool)
    while (missing := wanted - int(mask.sum())) > 0:
        size, shape, top, left = torch.rand(4, generator=generator).tolist()
        area = SMALLEST_BLOCK + size * (LARGEST_BLOCK - SMALLEST_BLOCK)
        aspect = math.exp((2 * shape - 1) * -math.log(ASPECT))
        height = min(side, max(1, round(math.sqrt(area * aspect))))
        width = min(side, max(1, round(math.sqrt(area / aspect))))
        y, x = int(top * (side - height + 1)), int(left * (side - width + 1))
        block = torch.zeros_like(mask)
        block[y : y + height, x : x + width] = True
        new = (block & ~mask).nonzero()[:missing]
        mask[new[:, 0], new[:, 1]] = True
    return mask
