"""Captions for the digits and what it means for one to be true of an image."""

from __future__ import annotations

from itertools import product

import torch
from torch import Generator, Tensor

from vitfeat.demo.digits import CLASS_NAMES

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
