"""Gram matrices of several layers, wherever they are kept: what CKA reads them through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.numerics.gram import Gram
from vitfeat.numerics.gramfile import GramMeta

Floats = NDArray[np.float64]


class Grams(Protocol):
    """Centred Gram matrices of the same n images, one a layer, read in blocks of rows.

    A :class:`~vitfeat.numerics.gramfile.GramFile` is one, and so are a :class:`GramSum` and
    :class:`GramsInMemory`.
    """

    meta: GramMeta
    where: str  # where they are kept, for messages; the same place is read once
    left_out: bool  # whether the model lacks these tokens, so that there is no layer
    layers: tuple[int, ...]
    n_images: int
    # offset, row_sum, diag: float64 (layer, n), see :class:`~vitfeat.numerics.gram.Gram`.
    offset: Floats
    row_sum: Floats
    diag: Floats

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start:stop of every layer's centred Gram matrix, (layer, stop - start, n)."""


class GramsInMemory:
    """Gram matrices that are on no disk, of the same images: those of layers 0, 1, ..."""

    def __init__(self, grams: Sequence[Gram], meta: GramMeta) -> None:
        self._grams = tuple(grams)
        self.meta = meta
        self.where = meta.model
        self.left_out = False
        self.layers: tuple[int, ...] = tuple(range(len(grams)))
        self.n_images = grams[0].n_images
        self.offset: Floats = np.stack([gram.offset for gram in grams])
        self.row_sum: Floats = np.stack([gram.row_sum for gram in grams])
        self.diag: Floats = np.stack([gram.diag for gram in grams])

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start:stop of every layer's centred Gram matrix, (layer, stop - start, n)."""
        return np.stack([gram.centred[start:stop] for gram in self._grams])


def check_alike(a: Grams, b: Grams, **more: tuple[object, object]) -> None:
    """Raise unless two are of the same images, and of `more` that they should have in common."""
    for what, (mine, theirs) in {
        "images": (a.meta.image_fingerprint, b.meta.image_fingerprint),
        "numbers of images": (a.n_images, b.n_images),
        **more,
    }.items():
        if mine != theirs:
            raise AnalysisError(
                f"{a.where} and {b.where} are of different {what} ({mine} and {theirs}): compute "
                f"both anew from the same images{''.join(f' and {name}' for name in more)}"
            )


class GramSum:
    """Gram matrices of features put side by side, added while they are read.

    Every field of theirs adds: a dot product over concatenated channels is the sum of the parts'
    dot products, and the mean of a concatenation is the concatenation of the means. Nothing is kept
    but the vectors, so that the sum of files takes no room of its own.
    """

    def __init__(self, parts: Sequence[Grams], tokens: str) -> None:
        if not parts:
            raise AnalysisError(f"a sum of Gram matrices ({tokens}) needs one part or more")
        first, *others = self._parts = tuple(parts)
        for other in others:
            check_alike(first, other, layers=(first.layers, other.layers))
        self.meta = replace(first.meta, tokens=tokens, made_from="")
        self.where = " + ".join(part.where for part in parts)
        self.layers, self.n_images = first.layers, first.n_images
        self.left_out = first.left_out
        self.offset: Floats = np.sum([part.offset for part in parts], axis=0)
        self.row_sum: Floats = np.sum([part.row_sum for part in parts], axis=0)
        self.diag: Floats = np.sum([part.diag for part in parts], axis=0)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start:stop of every layer's centred Gram matrix, (layer, stop - start, n)."""
        first, *others = self._parts
        rows = first.block(start, stop)
        for other in others:
            rows = rows + other.block(start, stop)
        return rows
