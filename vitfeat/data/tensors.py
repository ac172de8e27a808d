"""From the bytes of a view to the numbers that a model takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def normalise(batch: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Scale bytes (B, H, W, 3) to [0, 1], subtract the mean, divide by the standard deviation.

    Returns float32, contiguous, (B, 3, H, W), on the batch's device; on a CPU bit for bit
    torchvision's ``ToTensor`` and ``Normalize``.
    """
    if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 of shape (B, H, W, 3), found {batch.dtype} of {tuple(batch.shape)}"
        )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"expected three means and three stds above 0, found {mean} and {std}")
    channels = batch.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    centre, scale = (
        torch.tensor(numbers, dtype=torch.float32, device=batch.device).view(3, 1, 1)
        for numbers in (mean, std)
    )
    return channels.sub_(centre).div_(scale)
