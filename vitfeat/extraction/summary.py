"""Attention summaries: the sufficient statistics of the attention metrics.

They are made while the attention of a block is still in memory, so that it need never be stored:
about thirty times fewer numbers for a ViT-B/16. docs/analyses/attention.md says which
metric needs which.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitfeat.analyses.attention import kernel
from vitfeat.analyses.attention.kernel import LEAST


def summarise(attention: Tensor, n_prefix: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    r"""Reduce the attention of one layer to its summaries.

    With :math:`A_{hqk}` the attention of an image, :math:`S` the spatial tokens and
    :math:`\tilde A_{hqk} = A_{hqk} / \sum_{k' \in S} A_{hqk'}` the rows renormalised over spatial
    keys (zero where the sum is zero):

    ========================== =========================================== ======================
    name                       value                                       shape
    ========================== =========================================== ======================
    prefix_query               :math:`A_{hqk}` for prefix queries          image, head, prefix, key
    spatial_query              mean over :math:`q \in S` of A              image, head, key
    spatial_query_renormalised mean over :math:`q \in S` of :math:`\tilde A`  image, head, y, x
    aligned                    mean over :math:`q \in S` of :math:`\tilde A` moved so that the
                               query stands in the centre                  image, head, dy, dx
    n_null                     number of rows without spatial attention    image, head
    deviation_positions        std over :math:`q \in S` (ddof 1), mean
                               over :math:`k \in S`, of A                  image, head
    deviation_heads            std over heads (ddof 1), mean over
                               :math:`q, k \in S`, of A                    image
    deviation_heads_all        the same, mean over all q, k                image
    entropy                    mean over :math:`q \in S` of
                               :math:`-\sum_k A \ln A`, in nats            image, head
    ========================== =========================================== ======================

    Returns float32 tensors by name. ``prefix_query`` is left out without prefix tokens,
    ``deviation_heads*`` with a single head, ``deviation_positions`` with a single position, where
    they are not defined.

    Parameters
    ----------
    attention
        (image, head, query, key), after the softmax, prefix tokens first; any float type. It is
        not changed; all sums are float32.
    n_prefix
        Number of prefix tokens.
    grid
        Rows and columns of the token grid.
    """
    attention = attention.float()
    spatial = attention[:, :, n_prefix:]
    patches = spatial[..., n_prefix:]
    n_queries = grid[0] * grid[1]
    left = patches.sum(-1)
    null = left < LEAST
    weight = torch.where(null, 0.0, 1.0 / left) / n_queries
    images, heads = attention.shape[:2]
    summary = {
        "spatial_query": spatial.mean(2),
        "spatial_query_renormalised": torch.einsum("nhqk,nhq->nhk", patches, weight).view(
            images, heads, *grid
        ),
        "aligned": _aligned(patches, weight, grid),
        "n_null": null.sum(-1).float(),
        "entropy": torch.special.entr(spatial).sum(-1).mean(-1),
    }
    if n_prefix:
        summary["prefix_query"] = attention[:, :, :n_prefix]
    if heads > 1:
        deviation = attention.std(dim=1, correction=1)
        summary["deviation_heads"] = deviation[:, n_prefix:, n_prefix:].mean((-2, -1))
        summary["deviation_heads_all"] = deviation.mean((-2, -1))
    if n_queries > 1:
        summary["deviation_positions"] = patches.std(dim=2, correction=1).mean(-1)
    return summary


def _aligned(patches: Tensor, weight: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum weighted maps, each shifted so that its query stands in the centre.

    Row by row and column by column: first the queries of one column, whose shift along x is the
    same, then the queries of one row. That reads the attention once, whatever the grid.
    """
    images, heads = patches.shape[:2]
    rows, columns = grid
    maps = patches.reshape(images, heads, rows, columns, rows, columns)
    weights = weight.view(images, heads, rows, columns, 1, 1)
    by_row = patches.new_zeros(images, heads, rows, rows, 2 * columns - 1)
    for x in range(columns):
        window = by_row[..., columns - 1 - x : 2 * columns - 1 - x]
        window.addcmul_(maps[:, :, :, x], weights[:, :, :, x])
    aligned = patches.new_zeros(images, heads, 2 * rows - 1, 2 * columns - 1)
    for y in range(rows):
        aligned[:, :, rows - 1 - y : 2 * rows - 1 - y] += by_row[:, :, y]
    return aligned


def summarise_images(
    attention: Tensor, n_prefix: int, grid: tuple[int, int], out: Mapping[str, Tensor]
) -> None:
    """Write the same into ``out``, by the kernel for CPUs; attention is float32."""
    views = {name: tensor.numpy() for name, tensor in out.items()}
    kernel.summarise_images(attention.numpy(), n_prefix, grid, views)
