"""What every training objective is to the loop, and the pieces that several share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from vitfeat.demo.batches import Batch


@dataclass(frozen=True)
class Recipe:
    """How an objective is optimised; the rate is the peak of the schedule.

    Weight decay is AdamW's, on matrices only.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05


class Objective(nn.Module, ABC):
    """A backbone, whatever its training needs beside it, and the loss.

    It is made from the untrained backbone and all training images, in 0..1, for what is fitted
    beforehand, such as BEiT's codes.
    """

    recipe: ClassVar[Recipe]
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_labels: ClassVar[bool] = False

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__()
        self.backbone = backbone

    @abstractmethod
    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Compute the loss of one batch, a scalar, views drawn by the generator."""

    def update(self, progress: float) -> None:
        """Follow an optimiser step; ``progress`` runs from 0 to 1 over the training."""

    def trained(self) -> VisionTransformer:
        """Return the backbone that is kept when training ends."""
        return self.backbone


@torch.no_grad()
def sincos_positions(backbone: VisionTransformer) -> None:
    """Set the position embedding to 2-D sines and cosines, CLS's to 0 (Chen et al., 2021)."""
    side = backbone.patch_embed.grid_size[0]
    waves = build_sincos2d_pos_embed([side, side], dim=backbone.embed_dim, interleave_sin_cos=True)
    backbone.pos_embed[0, 0] = 0.0
    backbone.pos_embed[0, 1:] = waves


def info_nce(logits: Tensor, positives: Tensor) -> Tensor:
    """Return symmetric InfoNCE in nats (van den Oord et al., 2018; as in CLIP).

    `logits` are similarities over the temperature, (n, n); `positives` is True where row and column
    belong together. With one positive per row and column this is the usual cross entropy. With
    several, the target is uniform over them (UniCL; Yang et al., 2022) and its entropy is
    subtracted, so that a perfect model has loss 0 in either case.
    """
    loss = logits.new_zeros(())
    for scores, matches in ((logits, positives), (logits.T, positives.T)):
        target = matches.to(scores.dtype) / matches.sum(dim=1, keepdim=True)
        loss = (
            loss + functional.kl_div(scores.log_softmax(dim=1), target, reduction="batchmean") / 2
        )
    return loss
