"""Arithmetic of the forward pass: fp32, tf32, bf16 or fp16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from vitfeat.errors import ConfigError

# fp32 is the reference. tf32 lets a GPU round the factors of matrix products to 10 bits; autocast
# keeps softmax, norms and sums in float32.
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context that a thread must run the forward pass in; it holds for that thread."""
    if precision in _AUTOCAST:
        return torch.autocast(device.type, dtype=_AUTOCAST[precision])
    return nullcontext()


@contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Set how float32 matrices are multiplied, for all threads; the caller's setting comes back."""
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"extraction.precision: tf32 needs an NVIDIA GPU, the device is {device.type}; "
            "use fp32 or bf16"
        )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
