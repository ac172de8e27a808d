"""Where a network keeps the norm that it applies behind its last block."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from vitfeat.final_norm import FinalNorm

# By name: whether it is applied to pooled tokens. timm's own pooled heads have `fc_norm` in the
# place of `norm`, open_clip's towers `ln_post`.
_NAMES = {"norm": False, "fc_norm": True, "ln_post": False}


def find_final_norm(model: Any) -> FinalNorm | None:
    """Return a network's final norm, or None where it has none that is known."""
    for name, pooled in _NAMES.items():
        module = getattr(model, name, None)
        if (norm := _read(module, pooled)) is not None:
            return norm
    return None


def _read(module: Any, pooled: bool) -> FinalNorm | None:
    is_rms = isinstance(module, nn.Module) and "rmsnorm" in type(module).__name__.lower()
    if not (isinstance(module, nn.LayerNorm) or is_rms):
        return None
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1:
        return None
    scale = weight.detach().float().cpu().numpy().copy()
    shift = np.zeros_like(scale) if bias is None else bias.detach().float().cpu().numpy().copy()
    eps = getattr(module, "eps", None)
    # PyTorch's own RMSNorm takes the type's resolution where no epsilon is given.
    eps = float(torch.finfo(torch.float32).eps) if eps is None else float(eps)
    return FinalNorm("rms" if is_rms else "layer", scale, shift, eps, pooled)
