"""Batches of the demo digits for training and for evaluating a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from vitfeat.demo import digits

# Stands for every label in the batches of an objective that has declared no use of labels.
HIDDEN = -1


@dataclass(frozen=True)
class Batch:
    """Images in 0..1, shape ``(n, 3, 32, 32)``, and their digits, shape ``(n,)``.

    Labels are all :data:`HIDDEN` where they are not to be used.
    """

    images: Tensor
    labels: Tensor

    def select(self, indices: Tensor) -> Batch:
        """Pick rows by position, ``indices`` of shape ``(m,)``."""
        return Batch(self.images[indices], self.labels[indices])


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Turn ``(n, h, w, 3)`` bytes into values in 0..1 of shape ``(n, 3, h, w)``."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0


def read(split: digits.Split, *, labelled: bool) -> Batch:
    """Read a whole split in the dataset's order; labels are :data:`HIDDEN` unless asked for."""
    images, labels = digits.load(split)
    kept = torch.from_numpy(labels)
    return Batch(to_tensor(images), kept if labelled else torch.full_like(kept, HIDDEN))


def epoch(data: Batch, size: int, generator: Generator) -> Iterator[Batch]:
    """Yield one epoch of shuffled batches of `size` images; a last, smaller batch is left out."""
    order = torch.randperm(len(data.images), generator=generator)
    for start in range(0, len(order) - size + 1, size):
        yield data.select(order[start : start + size])
