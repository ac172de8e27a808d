"""Merging products of images into lists of the nearest, on a GPU.

As on the CPU: what is not above a list's last entry is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitfeat.numerics.neighbours.keys import EMPTY, Keys, similarities_of, to_keys

if TYPE_CHECKING:
    import torch

TILE = 16384
"""Images of the bank that are compared at once."""

ROWS = 4096
"""Queries of a product: with a tile 256 MiB."""


class TorchSearch:
    """As :class:`vitfeat.numerics.neighbours.on_cpu.CpuSearch`, on a torch device."""

    def __init__(self, queries: NDArray[np.float32], k: int, device: str) -> None:
        import torch  # here only: it costs seconds that no job on the CPU should pay

        self._device = device
        self._queries = torch.from_numpy(queries).to(device)
        shape = (len(queries), k)
        self._best = torch.full(shape, EMPTY, dtype=torch.int64, device=device)

    def add(self, tile: NDArray[np.float32], start: int) -> None:
        """Compare with images start, start + 1, ... of the bank, float32 (image, channel).

        Tiles come in ascending order.
        """
        import torch

        bank = torch.from_numpy(tile).to(self._device).T
        for first in range(0, len(self._queries), ROWS):
            rows = slice(first, first + ROWS)
            self._best[rows] = _merged(self._best[rows], self._queries[rows] @ bank, start)

    def sorted_keys(self) -> Keys:
        """Return the lists, int64 (query, k), nearest first."""
        return np.asarray(self._best.sort(dim=1, descending=True).values.cpu().numpy())


def _merged(best: torch.Tensor, product: torch.Tensor, start: int) -> torch.Tensor:
    """Return lists into which a product was merged; see ``merge`` on the CPU."""
    import torch

    k, columns = best.shape[1], product.shape[1]
    least = best.min(dim=1).values
    limits = similarities_of(least, torch)
    if columns >= k and bool((least == EMPTY).all()):
        # Lists that are not full take no more than the k greatest either.
        limits = product.topk(k, dim=1, sorted=False).values.min(dim=1).values
        limits = torch.nextafter(limits, torch.full_like(limits, -torch.inf))
    rows, found = torch.nonzero(product > limits[:, None], as_tuple=True)
    if not len(rows):
        return best
    counts = torch.bincount(rows, minlength=len(best))
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(rows), device=rows.device) - starts[rows]
    table = best.new_full((len(best), k + int(counts.max())), EMPTY)
    table[:, :k] = best
    table[rows, k + place] = to_keys(product[rows, found], found + start, torch)
    return table.topk(k, dim=1, sorted=False).values
