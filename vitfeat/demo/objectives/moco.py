"""MoCo v3: contrast of two views with a momentum encoder (Chen, Xie and He, 2021)."""

from __future__ import annotations

import copy

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor
from torch.nn import functional

from vitfeat.demo import tokens
from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import Batch
from vitfeat.demo.objectives.base import (
    Objective,
    Recipe,
    ema_momentum,
    ema_update,
    frozen,
    info_nce,
    mlp,
    sincos_positions,
)

TEMPERATURE = 0.2
FIRST_MOMENTUM = 0.98
HIDDEN = 256
OUT = 64


class Moco(Objective):
    """Query encoder with predictor against momentum keys; the query's backbone is kept."""

    recipe = Recipe(epochs=25, batch_size=128, learning_rate=1e-3)
    summary = (
        "symmetric InfoNCE of two views, predictor, momentum keys, in-batch negatives, frozen "
        "random patch projection, fixed 2-D sin-cos positions"
    )
    source = "Chen, Xie and He, 2021"

    augmentation = Augmentation(
        (0.4, 1.0), rotation=12, shear=0.15, jitter=0.3, blur=1.0, noise=0.08
    )

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__(backbone, images)
        sincos_positions(backbone)
        backbone.pos_embed.requires_grad_(False)
        # The paper (section 4) finds that a trained projection makes contrastive ViTs unstable.
        frozen(backbone.patch_embed)
        self.projector = mlp(backbone.embed_dim, HIDDEN, HIDDEN, OUT)
        self.predictor = mlp(OUT, HIDDEN, OUT)
        self.key_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.key_projector = frozen(copy.deepcopy(self.projector))

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Symmetric InfoNCE in nats, mean over the two directions of views."""
        n = len(batch.images)
        views = torch.cat([self.augmentation(batch.images, generator) for _ in range(2)])
        # Each view passes the heads by itself: batch normalisation is per view, as in the paper.
        queries = [
            functional.normalize(self.predictor(self.projector(v)), dim=1)
            for v in tokens.encode_cls(self.backbone, views).chunk(2)
        ]
        with torch.no_grad():
            keys = [
                functional.normalize(self.key_projector(v), dim=1)
                for v in tokens.encode_cls(self.key_backbone, views).chunk(2)
            ]
        own = torch.eye(n, dtype=torch.bool)
        pairs = ((queries[0], keys[1]), (queries[1], keys[0]))
        return torch.stack([info_nce(q @ k.T / TEMPERATURE, own) for q, k in pairs]).mean()

    def update(self, progress: float) -> None:
        """Move the key encoder."""
        momentum = ema_momentum(FIRST_MOMENTUM, progress)
        ema_update(self.key_backbone, self.backbone, momentum)
        ema_update(self.key_projector, self.projector, momentum)
