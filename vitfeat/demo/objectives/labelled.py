"""Objectives that see labels: a classifier, and CLIP, which gets them as captions."""

from __future__ import annotations

import math
from itertools import product

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from vitfeat.demo import tokens
from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import Batch
from vitfeat.demo.digits import CLASS_NAMES
from vitfeat.demo.objectives.base import Objective, Recipe, info_nce

STROKES = ("thin", "plain", "bold")
# Half of the templates say how heavy the stroke is, half leave it open.
TEMPLATES = (
    "a handwritten {digit}",
    "the digit {digit}",
    "a picture of the number {digit}",
    "a {stroke} handwritten {digit}",
    "the digit {digit} in {stroke} strokes",
    "a picture of the number {digit} , {stroke}",
)
UNSTATED = -1
PADDING = 0
WIDTH = 64
# CLIP starts its learned temperature at 0.07 and clamps the scale at 100.
FIRST_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0


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


class Captions:
    """All captions, tokenised by words.

    ``texts`` are the captions, by template, digit and stroke; ``words`` the vocabulary, of which
    index 0 is the padding; ``ids`` word indices, padded at the end, shape (captions, words). The
    terciles of the training images' mean ink are what separates thin, plain and bold.
    """

    def __init__(self, images: Tensor) -> None:
        table = list(product(TEMPLATES, CLASS_NAMES, STROKES))
        self.texts = [template.format(digit=d, stroke=s) for template, d, s in table]
        split = [text.split() for text in self.texts]
        self.words = ["<padding>", *sorted({word for text in split for word in text})]
        longest = max(map(len, split))
        index = {word: i for i, word in enumerate(self.words)}
        rows = [[index[w] for w in text] + [PADDING] * (longest - len(text)) for text in split]
        self.ids = torch.tensor(rows)
        self._states_stroke = torch.tensor(["{stroke}" in template for template in TEMPLATES])
        self._bounds = torch.quantile(_ink(images), torch.tensor([1 / 3, 2 / 3]))

    def strokes(self, images: Tensor) -> Tensor:
        """Classify images as thin, plain or bold: indices into :data:`STROKES`, shape ``(n,)``."""
        return torch.bucketize(_ink(images), self._bounds)

    def draw(self, digits: Tensor, strokes: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw a true caption for every image, and find which captions are true of which images.

        Returns word indices, (n, words), and ``truth[i, j]``: caption ``j`` is true of image ``i``.
        """
        template = torch.randint(len(TEMPLATES), (len(digits),), generator=generator)
        caption = (template * len(CLASS_NAMES) + digits) * len(STROKES) + strokes
        stated = torch.where(self._states_stroke[template], strokes, UNSTATED)
        same_digit = digits[:, None] == digits[None, :]
        fits_stroke = (stated[None, :] == UNSTATED) | (stated[None, :] == strokes[:, None])
        return self.ids[caption], same_digit & fits_stroke


def _ink(images: Tensor) -> Tensor:
    """Mean value of each image, shape ``(n,)``."""
    return images.mean(dim=(1, 2, 3))


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
