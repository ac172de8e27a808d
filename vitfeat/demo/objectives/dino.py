"""DINO: self-distillation with no labels (Caron et al., 2021)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
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
    mlp,
    sincos_positions,
)

PROTOTYPES = 128
LOCAL_CROPS = 4
STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.04
FIRST_MOMENTUM = 0.95
CENTRE_MOMENTUM = 0.9


class Dino(Objective):
    """A student follows its own moving average across crops; the teacher's backbone is kept."""

    recipe = Recipe(epochs=18, batch_size=64, learning_rate=1e-3)
    summary = (
        f"self-distillation, 2 global (32 px) and {LOCAL_CROPS} local (16 px) crops, "
        f"{PROTOTYPES} prototypes, batch normalisation in the head, centring and sharpening, "
        "positions started at sines and cosines; the teacher is kept"
    )
    source = "Caron et al., 2021"

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
        self.head = Head(backbone.embed_dim)
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)
        self.teacher_head = frozen(copy.deepcopy(self.head))
        self.register_buffer("centre", torch.zeros(PROTOTYPES))
        self.register_buffer("latest", torch.zeros(PROTOTYPES))

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Cross entropy in nats, teacher's global crops against student's other crops."""
        wide = torch.cat([self.large(batch.images, generator) for _ in range(2)])
        narrow = torch.cat([self.small(batch.images, generator) for _ in range(LOCAL_CROPS)])
        with torch.no_grad():
            taught = self.teacher_head(tokens.encode_cls(self.teacher, wide))
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
        momentum = ema_momentum(FIRST_MOMENTUM, progress)
        ema_update(self.teacher, self.backbone, momentum)
        ema_update(self.teacher_head, self.head, momentum)
        self.centre = torch.lerp(self.latest, self.centre, CENTRE_MOMENTUM)

    def trained(self) -> VisionTransformer:
        """Return the teacher, which DINO's authors found the better of the two throughout."""
        return self.teacher


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
