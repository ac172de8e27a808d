"""Supervised classification: cross entropy on the labels."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from vitfeat.demo import tokens
from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import Batch
from vitfeat.demo.digits import CLASS_NAMES
from vitfeat.demo.objectives.base import Objective, Recipe


class Supervised(Objective):
    """A linear classifier on CLS, as in ViT (Dosovitskiy et al., 2021)."""

    recipe = Recipe(epochs=40, batch_size=128, learning_rate=1e-3)
    summary = "cross entropy of a linear classifier on CLS, light augmentation"
    source = "Dosovitskiy et al., 2021"
    needs_labels = True

    augmentation = Augmentation(area=(0.7, 1.0), rotation=10.0, shear=0.1, jitter=0.2, noise=0.05)

    def __init__(self, backbone: VisionTransformer, images: Tensor) -> None:
        super().__init__(backbone, images)
        self.classifier = nn.Linear(backbone.embed_dim, len(CLASS_NAMES))

    def loss(self, batch: Batch, generator: Generator) -> Tensor:
        """Cross entropy in nats."""
        views = self.augmentation(batch.images, generator)
        logits = self.classifier(tokens.encode_cls(self.backbone, views))
        return functional.cross_entropy(logits, batch.labels)
