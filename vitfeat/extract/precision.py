"""Arithmetic of the forward pass: fp32, tf32, bf16 or fp16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vitfeat.errors import ConfigError

#: fp32 is the reference. tf32 lets a GPU round the factors of matrix products to 10 bits; bf16 and
#: fp16 use autocast, which keeps softmax, norms and sums in float32.
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def forward_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Run what is inside in the asked arithmetic; autocast holds for the calling thread alone.

    Raises
    ------
    ConfigError
        For tf32 on a device that has none.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"extraction.precision: tf32 needs an NVIDIA GPU, the device is {device.type}; "
            "use fp32 or bf16"
        )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        if precision in _AUTOCAST:
            with torch.autocast(device.type, dtype=_AUTOCAST[precision]):
                yield
        else:
            yield
    finally:
        torch.set_float32_matmul_precision(before)
