"""Numbers that can be a network's weights as they stand, and those that cannot."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitfeat.errors import ModelError

_WEIGHTS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def refuse_unfit(state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that nothing can be copied from as it is: quantised, sparse, empty shells.

    Whole numbers may be indices: :func:`unfit` says so of those in the place of weights.

    Raises
    ------
    ModelError
        Naming their types, and the first.
    """
    found = {
        key: tensor
        for key, tensor in state.items()
        if tensor.is_meta
        or tensor.is_quantized
        or tensor.layout is not torch.strided
        or tensor.is_complex()
        or (tensor.is_floating_point() and tensor.dtype not in _WEIGHTS)
    }
    if found:
        raise unfit(found)


def unfit(found: Mapping[str, Tensor]) -> ModelError:
    """Return the error about tensors of no type of weights."""
    kinds = sorted({_kind(tensor) for tensor in found.values()})
    first, *more = sorted(found)
    return ModelError(
        f"holds weights of the type {' and '.join(kinds)} ({first}"
        f"{f' and {len(more)} more' if more else ''}), which are no weights by themselves: they "
        "were quantised, packed or left out; save the network's own state dict in float32, float16 "
        "or bfloat16"
    )


def _kind(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return "meta (no numbers at all)"
    if tensor.layout is not torch.strided:
        return f"{name}, sparse"
    return name
