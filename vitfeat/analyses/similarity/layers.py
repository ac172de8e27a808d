"""A layer as the measures of similarity see it: products of every two images, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.numerics.gram import Gram

Floats = NDArray[np.float64]

RESOLUTION = float(np.finfo(np.float32).eps)
"""Relative rounding error of a kept Gram matrix."""


@dataclass(frozen=True, eq=False)
class Layer:
    r"""Gram matrix of one layer over the images that are compared, in float64.

    Attributes
    ----------
    centred
        :math:`K_{ij} = (x_i - \mu) \cdot (x_j - \mu)`, (n, n), with :math:`\mu` the mean over
        these very images.
    offset
        :math:`u_i = (x_i - \mu) \cdot \mu`, (n,).
    level
        :math:`c = \mu \cdot \mu`.
    """

    centred: Floats
    offset: Floats
    level: float

    @property
    def n_images(self) -> int:
        """Number of images n."""
        return len(self.offset)

    @property
    def raw(self) -> Floats:
        r"""Products :math:`x_i \cdot x_j = K_{ij} + u_i + u_j + c`, (n, n)."""
        return self.centred + (self.offset[:, None] + self.offset + self.level)

    @property
    def varies(self) -> bool:
        """Whether features tell the images apart at all, beyond the rounding of float32."""
        spread = float(np.trace(self.centred))
        return spread > RESOLUTION**2 * (spread + self.n_images * self.level)


def layer_of(gram: Gram, images: NDArray[np.intp] | None = None) -> Layer:
    """Take some images of a Gram matrix (None is all) and centre it over them."""
    if images is None:
        return Layer(gram.centred.astype(np.float64), gram.offset, gram.level)
    part = gram.centred[np.ix_(images, images)].astype(np.float64)
    row_mean = part.mean(axis=1)
    grand = float(row_mean.mean())
    # The mean moves from m to m + e, with e the mean of x - m over these images: (x - m) e are
    # the row means of the part, and e e is their mean.
    part -= row_mean[:, None]
    part += grand - row_mean
    offset = gram.offset[images]
    moved = offset + row_mean
    return Layer(part, moved - moved.mean(), gram.level + 2 * float(offset.mean()) + grand)
