"""Objectives with a moving average of the network: DINO (Caron et al., 2021) and MoCo v3."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from vitfeat.demo import tokens
from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import Batch
from vitfeat.demo.objectives.base import Objective, Recipe, info_nce, sincos_positions

PROTOTYPES = 128
LOCAL_CROPS = 4
STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.04
CENTRE_MOMENTUM = 0.9
CONTRAST_TEMPERATURE = 0.2


def ema_momentum(start: float, progress: float) -> float:
    """Momentum that rises from ``start`` to 1 along a cosine (BYOL; Grill et al., 2020)."""
    return 1.0 - (1.0 - start) * (math.cos(math.pi * progress) + 1.0) / 2.0


@torch.no_grad()
def ema_update(average: nn.Module, current: nn.Module, momentum: float) -> None:
    """Move ``average`` in place to ``momentum * average + (1 - momentum) * current``."""
    for kept, new in zip(average.parameters(), current.parameters(), strict=True):
        kept.lerp_(new, 1.0 - momentum)


def mlp(*widths: int) -> nn.Sequential:
    """Return linear layers of these widths, each batch-normalised, with ReLU between them."""
    layers: list[nn.Module] = []
    for i, (wide, narrow) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        layers.append(nn.Linear(wide, narrow, bias=False))
        # Statistics of the batch at all times: evaluation compares before and after alike.
        layers.append(nn.BatchNorm1d(narrow, affine=not last, track_running_stats=False))
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Averaged(Objective):
    """An objective whose backbone and head are followed by their moving averages."""

    first_momentum: ClassVar[float]

    def follow(self, head: nn.Module) -> None:
        """Start the averages, which take no gradients, from the backbone and a head."""
        self.head = head
        self.average = copy.deepcopy(self.backbone).requires_grad_(False)
        self.average_head = copy.deepcopy(head).requires_grad_(False)

    def update(self, progress: float) -> None:
        """Move the averages."""
        momentum = ema_momentum(self.first_momentum, progress)
        ema_update(self.average, self.backbone, momentum)
        ema_update(self.average_head, self.head, momentum)


class Dino(Averaged):
    """A student follows its own moving average across crops; the teacher's backbone is kept."""

    recipe = Recipe(epochs=18, batch_size=64, learning_rate=1e-3)
    summary = (
        f"self-distillation, 2 global (32 px) and {LOCAL_CROPS} local (16 px) crops, "
        f"{PROTOTYPES} prototypes, batch normalisation in the head, centring and sharpening, "
        "positions started at sines and cosines; the teacher is kept"
    )
    source = "Caron et al., 2021"
    first_momentum = 0.95

    centre: Tensor
    latest: Tensor

    large = Augmentation((0.6, 1.0), rotation=8, shear=0.1, jitter=0.2, blur=1.0, noise=0.05)
    # Local crops have a quarter of the tokens; the position embedding is resampled for them.
    small = Augmentation((0.35, 0.7), rotation=8, shear=0.1, jitter=0.2, noise=0.05, size=16)

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__(backbone, images)
        # A start from which positions can be told apart: with the usual small noise the first
        # targets are those of a bag of patches, and a training this short never leaves them.
        sincos_positions(backbone)
        self.follow(Head(backbone.embed_dim))
        self.register_buffer("centre", torch.zeros(PROTOTYPES))
        self.register_buffer("latest", torch.zeros(PROTOTYPES))

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Cross entropy in nats, teacher's global crops against student's other crops."""
        wide = torch.cat([self.large(batch.images, generator) for _ in range(2)])
        narrow = torch.cat([self.small(batch.images, generator) for _ in range(LOCAL_CROPS)])
        with torch.no_grad():
            taught = self.average_head(tokens.encode_cls(self.average, wide))
        self.latest = taught.mean(dim=0)
        guessed = torch.cat(
            [
                self.head(tokens.encode_cls(self.backbone, wide)),
                self.head(tokens.encode_cls(self.backbone, narrow)),
            ]
        )
        return distillation_loss(guessed.chunk(2 + LOCAL_CROPS), taught.chunk(2), self.centre)

    def update(self, progress: float) -> None:
        """Move the teacher and the centre."""
        super().update(progress)
        self.centre = torch.lerp(self.latest, self.centre, CENTRE_MOMENTUM)

    def trained(self) -> VisionTransformer:
        """Return the teacher, which DINO's authors found the better of the two throughout."""
        return self.average


class Head(nn.Module):
    """MLP with batch normalisation, bottleneck on the unit sphere, prototypes of unit length."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # At this width CLS differs little between images at first, and centring would take most of
        # that difference away: without batch normalisation, which DINO leaves to convolutional
        # networks, all targets turn uniform within 100 steps and training collapses.
        self.mlp = mlp(width, 256, 256, 64)
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, 64))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(n, d)`` to cosine similarities with the prototypes, ``(n, 128)``."""
        # Normalised rows are weight normalisation with its gain held at 1, as DINO recommends.
        return functional.linear(
            functional.normalize(self.mlp(features), dim=1),
            functional.normalize(self.prototypes, dim=1),
        )


def distillation_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], centre: Tensor
) -> Tensor:
    """Return DINO's loss in nats over all pairs of different crops (Caron et al., 2021).

    Algorithm 1. Head outputs by crop, (n, k) each: the student's global crops first, in the
    teacher's order; `centre` is the running mean of the teacher's, (k,).
    """
    targets = [((t - centre) / TEACHER_TEMPERATURE).softmax(dim=1) for t in teacher]
    guesses = [(s / STUDENT_TEMPERATURE).log_softmax(dim=1) for s in student]
    terms = [
        -(target * guess).sum(dim=1).mean()
        for i, target in enumerate(targets)
        for j, guess in enumerate(guesses)
        if i != j
    ]
    return torch.stack(terms).mean()


class Moco(Averaged):
    """Query encoder with predictor against momentum keys; the query's backbone is kept."""

    recipe = Recipe(epochs=25, batch_size=128, learning_rate=1e-3)
    summary = (
        "symmetric InfoNCE of two views, predictor, momentum keys, in-batch negatives, frozen "
        "random patch projection, fixed 2-D sin-cos positions"
    )
    source = "Chen, Xie and He, 2021"
    first_momentum = 0.98

    augmentation = Augmentation(
        (0.4, 1.0), rotation=12, shear=0.15, jitter=0.3, blur=1.0, noise=0.08
    )

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__(backbone, images)
        sincos_positions(backbone)
        backbone.pos_embed.requires_grad_(False)
        # The paper (section 4) finds that a trained projection makes contrastive ViTs unstable.
        backbone.patch_embed.requires_grad_(False)
        self.follow(mlp(backbone.embed_dim, 256, 256, 64))
        self.predictor = mlp(64, 256, 64)

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Symmetric InfoNCE in nats, mean over the two directions of views."""
        n = len(batch.images)
        views = torch.cat([self.augmentation(batch.images, generator) for _ in range(2)])
        # Each view passes the heads by itself: batch normalisation is per view, as in the paper.
        queries = [
            functional.normalize(self.predictor(self.head(v)), dim=1)
            for v in tokens.encode_cls(self.backbone, views).chunk(2)
        ]
        with torch.no_grad():
            keys = [
                functional.normalize(self.average_head(v), dim=1)
                for v in tokens.encode_cls(self.average, views).chunk(2)
            ]
        own = torch.eye(n, dtype=torch.bool)
        pairs = ((queries[0], keys[1]), (queries[1], keys[0]))
        return torch.stack([info_nce(q @ k.T / CONTRAST_TEMPERATURE, own) for q, k in pairs]).mean()
