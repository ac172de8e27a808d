"""Linear Gram matrices: the part of CKA that is done once per model, not once per pair.

Linear CKA sees the features of n images only through the products of every two images. Those
n x n products are computed here from features that may not fit in memory, and kept centred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Read = Callable[[int, int], NDArray[Any]]
"""``read(start, stop)`` gives the features of images start:stop, (stop - start, ...)."""

Product = Callable[
    [NDArray[Any], NDArray[Any], NDArray[np.float32], int, NDArray[np.float64]],
    NDArray[np.float64],
]
"""Of tiles a and b, reference r and a slab width: fills in (a - r)(b - r)^T, gives (a - r) r."""

REFERENCE_ROWS = 256
"""The reference is a mean of so many rows: enough that one outlying image does not spoil it."""

SLAB_BYTES = 256 * 2**20
"""Float32 working slabs never take more than this: wider ones make the product no faster."""

CENTRE_ROWS = 256


@dataclass(frozen=True)
class Gram:
    r"""The centred linear Gram matrix of one layer, and what restores the raw one.

    With features :math:`x_i \in R^d` of n images and their mean :math:`\mu`:

    Attributes
    ----------
    centred
        :math:`K_{ij} = (x_i - \mu) \cdot (x_j - \mu)`, float32 (n, n), symmetric.
    offset
        :math:`u_i = (x_i - \mu) \cdot \mu`, float64 (n,).
    level
        :math:`c = \mu \cdot \mu`. The raw :math:`x_i \cdot x_j` is
        :math:`K_{ij} + u_i + u_j + c`.
    row_sum
        :math:`\sum_{j \ne i} K_{ij}`, float64 (n,): all that the unbiased HSIC needs beside K.
    diag
        :math:`K_{ii}`, float64 (n,).
    """

    centred: NDArray[np.float32]
    offset: NDArray[np.float64]
    level: float
    row_sum: NDArray[np.float64]
    diag: NDArray[np.float64]

    @property
    def n_images(self) -> int:
        """Number of images n."""
        return len(self.diag)


def add(a: Gram, b: Gram) -> Gram:
    """Gram matrix of the features of a and b put side by side.

    A dot product over concatenated channels is the sum of the parts' dot products, and the mean
    of a concatenation is the concatenation of the means, so every field adds. The Gram matrix of
    all tokens therefore comes from those of its parts, without reading a feature again.

    Both are of the same images in the same order.
    """
    if a.n_images != b.n_images:
        raise AnalysisError(
            f"Gram matrices of {a.n_images} and {b.n_images} images cannot be added: "
            "compute both from the same images"
        )
    return Gram(
        centred=a.centred + b.centred,
        offset=a.offset + b.offset,
        level=a.level + b.level,
        row_sum=a.row_sum + b.row_sum,
        diag=a.diag + b.diag,
    )


def gram(read: Read, n: int, *, max_bytes: int = 2 * 2**30, device: str = "cpu") -> Gram:
    """Centred linear Gram matrix of one layer's features over n images.

    A reference vector near the mean is taken from every feature before the products, so that
    channels that are large but nearly constant (every large ViT has some) do not drown the rest
    in float32. The reference need not be the mean: what remains is taken out exactly afterwards,
    in float64, by centring the matrix itself. The relative error of an entry is about 1e-6 of the
    product of the two images' norms.

    Parameters
    ----------
    read
        ``read(start, stop)`` gives the features of images start:stop, float16 or float32 of shape
        (stop - start, ...); trailing axes are flattened to d features. One image is read first to
        learn the size. When all fit into ``max_bytes`` every image is then read once; with several
        tiles those of tile k = 0, 1, ... are read max(1, k) times.
    max_bytes
        Bound on the features held at once: at most two tiles of rows, as ``read`` gives them, and
        their float32 slabs of columns. The result takes 12 n^2 bytes more while it is made. One
        row and one column is the least a tile can hold, however small the bound.
    device
        ``"cpu"``, or a torch device such as ``"cuda"`` for the products.
    """
    if n < 1:
        raise AnalysisError("a Gram matrix needs at least 1 image, got none: check the dataset")
    slab_bytes, rows = _plan(_flat(read(0, 1)), n, max_bytes)
    product: Product = _numpy_product if device == "cpu" else _torch_product(device)
    raw = np.zeros((n, n))
    projection = np.empty(n)
    starts = range(0, n, rows)

    def tile(start: int) -> NDArray[Any]:
        return _flat(read(start, min(start + rows, n)))

    held = tile(0)
    reference = _reference(held)
    for i, start in enumerate(starts):
        own = slice(start, start + len(held))
        width = max(1, slab_bytes // (8 * len(held)))
        projection[own] = product(held, held, reference, width, raw[own, own])
        # From the last tile backwards: the one that stays in memory is the next to be held.
        other = held
        for other_start in reversed(starts[i + 1 :]):
            del other
            other = tile(other_start)
            others = slice(other_start, other_start + len(other))
            product(held, other, reference, width, raw[own, others])
            raw[others, own] = raw[own, others].T
        held = other
    return _centre(raw, projection, float(np.square(reference, dtype=np.float64).sum()))


def token_means(read: Read, width: int, rows: int) -> Read:
    """Give a reader of the mean over each image's tokens, (stop - start, width), for :func:`gram`.

    Sums are float64, rounded once. So many ``rows`` of images are read at once, and reads begin at
    its multiples: make it a multiple of the images in a chunk on disk, and no chunk is decoded
    twice.
    """

    def means(start: int, stop: int) -> NDArray[np.float32]:
        out = np.empty((stop - start, width), dtype=np.float32)
        for begin in range(start - start % rows, stop, rows):
            own = slice(max(begin, start), min(begin + rows, stop))
            out[own.start - start : own.stop - start] = _token_mean(read(own.start, own.stop))
        return out

    return means


def _token_mean(tokens: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over all axes between the first and the last, without a float64 copy of the tokens."""
    between = tuple(range(1, tokens.ndim - 1))
    return np.asarray(tokens.mean(axis=between, dtype=np.float64))


def _flat(rows: NDArray[Any]) -> NDArray[Any]:
    return rows.reshape(len(rows), -1)


def _plan(row: NDArray[Any], n: int, max_bytes: int) -> tuple[int, int]:
    """Bytes for float32 slabs, and rows in a tile, so that two tiles and the slabs fit."""
    slab_bytes = min(SLAB_BYTES, max_bytes // 4)
    held_rows = max(1, (max_bytes - slab_bytes) // max(1, row.nbytes))
    if held_rows >= n:
        return slab_bytes, n
    tiles = -(-n // max(1, held_rows // 2))
    return slab_bytes, -(-n // tiles)


def _reference(tile: NDArray[Any]) -> NDArray[np.float32]:
    """Mean of some rows spread over the tile; exactly the constant when a channel is constant."""
    step = -(-len(tile) // REFERENCE_ROWS)
    mean = tile[::step].mean(axis=0, dtype=np.float64)
    return np.asarray(mean, dtype=np.float32)


def _slab(tile: NDArray[Any], reference: NDArray[np.float32], columns: slice) -> NDArray[Any]:
    slab = tile[:, columns].astype(np.float32)
    slab -= reference[columns]
    return slab


def _numpy_product(
    a: NDArray[Any],
    b: NDArray[Any],
    reference: NDArray[np.float32],
    width: int,
    out: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Float32 within a slab of columns, float64 across slabs; ``out`` starts as zeros."""
    projection = np.zeros(len(a))
    for start in range(0, a.shape[1], width):
        columns = slice(start, start + width)
        left = _slab(a, reference, columns)
        # The very same array on both sides lets BLAS do half the work and stay symmetric.
        out += left @ (left if b is a else _slab(b, reference, columns)).T
        projection += left @ reference[columns]
    return projection


def _torch_product(device: str) -> Product:
    """As :func:`_numpy_product`, on a torch device."""
    import torch  # here only: it costs seconds that no job on the CPU should pay

    def slab(tile: NDArray[Any], centre: torch.Tensor, columns: slice) -> torch.Tensor:
        # Half precision travels as such and grows on the device.
        part = torch.from_numpy(np.ascontiguousarray(tile[:, columns]))
        return part.to(device).to(torch.float32) - centre

    def product(
        a: NDArray[Any],
        b: NDArray[Any],
        reference: NDArray[np.float32],
        width: int,
        out: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        block = torch.zeros(out.shape, dtype=torch.float64, device=device)
        projection = torch.zeros(len(a), dtype=torch.float64, device=device)
        for start in range(0, a.shape[1], width):
            columns = slice(start, start + width)
            centre = torch.from_numpy(reference[columns]).to(device)
            left = slab(a, centre, columns)
            block += left @ (left if b is a else slab(b, centre, columns)).T
            projection += left @ centre
        # No GPU library promises a symmetric product.
        out[:] = ((block + block.T) / 2 if b is a else block).cpu().numpy()
        return np.asarray(projection.cpu().numpy(), dtype=np.float64)

    return product


def _centre(raw: NDArray[np.float64], projection: NDArray[np.float64], reference: float) -> Gram:
    """Gram from products of y = x - r, the projections y r, and r r.

    With m the mean of y, the features' mean is r + m; every term follows from row means.
    """
    n = len(raw)
    row_mean = raw.mean(axis=1)
    grand = row_mean.mean()
    if not np.isfinite(grand):
        raise AnalysisError(
            f"Gram matrix of {n} images is not finite: their features hold infinity or NaN, or "
            "products too large for float32; extract them again"
        )
    centred = np.empty((n, n), dtype=np.float32)
    row_sum = np.empty(n)
    diag = np.empty(n)
    for start in range(0, n, CENTRE_ROWS):
        own = slice(start, min(start + CENTRE_ROWS, n))
        # One symmetric correction, so that the result is symmetric to the last bit.
        centred[own] = raw[own] - (row_mean[own, None] + row_mean - grand)
        # Sums of what is kept, rounding included, so that they belong to it exactly.
        diag[own] = centred[np.arange(own.start, own.stop), np.arange(own.start, own.stop)]
        row_sum[own] = centred[own].sum(axis=1, dtype=np.float64) - diag[own]
    return Gram(
        centred=centred,
        offset=projection + row_mean - projection.mean() - grand,
        level=float(reference + 2 * projection.mean() + grand),
        row_sum=row_sum,
        diag=diag,
    )
