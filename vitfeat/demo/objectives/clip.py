"""CLIP: images against captions (Radford et al., 2021)."""

from __future__ import annotations

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from vitfeat.demo import tokens
from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import Batch
from vitfeat.demo.objectives.base import Objective, Recipe, info_nce
from vitfeat.demo.objectives.captions import PADDING, Captions

WIDTH = 64
# CLIP starts its learned temperature at 0.07 and clamps the scale at 100.
FIRST_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0


class Clip(Objective):
    """Image and text towers with a joint space and a learned temperature.

    A batch of 128 digits repeats captions, and "the digit seven" is true of every seven in it, so
    the plain one-positive InfoNCE would call true pairs negative. Forcing the captions of a batch
    apart would leave ten images a batch. Instead every image that a caption truly describes
    is a positive of it (:meth:`vitfeat.demo.objectives.captions.Captions.draw`).
    """

    recipe = Recipe(epochs=38, batch_size=128, learning_rate=1e-3)
    summary = (
        "symmetric InfoNCE between images and captions (digit word, sometimes the stroke's weight),"
        " all true pairs positive, learned temperature"
    )
    source = "Radford et al., 2021"
    needs_labels = True

    augmentation = Augmentation(area=(0.8, 1.0), rotation=8.0, shear=0.05, noise=0.05)

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__(backbone, images)
        self.captions = Captions(images)
        self.text = TextTower(len(self.captions.words), self.captions.ids.shape[1])
        self.to_joint = nn.Linear(backbone.embed_dim, WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Multi-positive symmetric InfoNCE in nats."""
        # The stroke's weight is judged before augmentation, which may change the ink.
        strokes = self.captions.strokes(batch.images)
        ids, truth = self.captions.draw(batch.labels, strokes, generator)
        views = self.augmentation(batch.images, generator)
        encoded = tokens.encode_cls(self.backbone, views)
        pictures = functional.normalize(self.to_joint(encoded), dim=1)
        texts = functional.normalize(self.text(ids), dim=1)
        scale = self.log_scale.clamp(max=math.log(LARGEST_SCALE)).exp()
        return info_nce(scale * pictures @ texts.T, truth)


class TextTower(nn.Module):
    """A two-block transformer over words, mean-pooled."""

    def __init__(self, words: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, WIDTH, padding_idx=PADDING)
        self.positions = nn.Parameter(0.02 * torch.randn(length, WIDTH))
        block = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False
        )
        self.to_joint = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Encode word indices of shape ``(n, words)`` to shape ``(n, 64)``."""
        padding = ids == PADDING
        x = self.blocks(self.embedding(ids) + self.positions, src_key_padding_mask=padding)
        real = (~padding)[..., None]
        joint: Tensor = self.to_joint((x * real).sum(dim=1) / real.sum(dim=1))
        return joint
