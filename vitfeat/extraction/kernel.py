"""The attention summaries of tensors on a CPU, by the kernel that analyses use too."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vitfeat.analyses.attention import kernel as attention_kernel


def summarise_images(
    attention: Tensor, n_prefix: int, grid: tuple[int, int], out: Mapping[str, Tensor]
) -> None:
    """Write the summaries of some images of one layer.

    Parameters
    ----------
    attention
        float32 (image, head, query, key) on the CPU; not changed.
    n_prefix
        Number of prefix tokens.
    grid
        Rows and columns of the token grid.
    out
        float32 tensors by name, (image, ...) each, as :func:`vitfeat.extraction.summary.summarise`
        gives them.
    """
    views = {name: tensor.numpy() for name, tensor in out.items()}
    attention_kernel.summarise_images(attention.numpy(), n_prefix, grid, views)
