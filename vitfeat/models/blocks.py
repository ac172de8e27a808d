"""What of a block is read: the modules that attend, the ends of its branches, and its attention.

The softmax of a fused kernel exists nowhere. While attention is tapped, the call
``scaled_dot_product_attention`` inside a block is answered by its definition, computed a few images
at a time, which on a CPU keeps the matrices in the cache.

A transformer block adds twice: what attention makes of the block's input to that input, and what
the MLP makes of the sum to the sum. A branch is what is added: behind LayerScale, and behind the
norm where norms stand at the end of the branches. The last module of each branch gives it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vitfeat.errors import ModelError

# Attention matrices that are alive at once while attention is tapped: on a CPU what a core's cache
# holds, on a GPU what is small beside its memory.
_CPU_BYTES = 2**20
_GPU_BYTES = 2**28

# The last modules of both branches, by the names of the libraries. timm's stochastic depth stands
# behind everything and does nothing in evaluation; open_clip's blocks end in their LayerScale;
# Gemma's have one stochastic depth for both, behind the norms.
_ENDS = (("drop_path1", "drop_path2"), ("ls_1", "ls_2"), ("norm2", "norm4"))


def attention_parts(block: nn.Module) -> list[nn.Module]:
    """Return the modules that a block attends in, in the order in which their heads are counted.

    One module; or several whose outputs are added (`Touvron et al. 2022
    <https://arxiv.org/abs/2203.09795>`_); or the block itself, where attention and MLP share their
    projections (`Dehghani et al. 2023 <https://arxiv.org/abs/2302.05442>`_). None is known of any
    other block.
    """
    single = getattr(block, "attn", None)
    if isinstance(single, nn.Module):
        return [single]
    branches = getattr(block, "attns", None)
    if isinstance(branches, nn.ModuleList):
        found = [getattr(branch, "attn", None) for branch in branches]
        return [part for part in found if isinstance(part, nn.Module)]
    return [block] if attention_switch(block) else []


def attention_switch(part: nn.Module) -> str | None:
    """Return the name of the setting by which a module asks PyTorch for attention, if it has one.

    timm and open_clip name it differently.
    """
    return next((name for name in ("fused_attn", "use_fsdpa") if hasattr(part, name)), None)


class Branches(NamedTuple):
    """The modules that give what a block adds to its skips.

    One each; or several, side by side, whose outputs are added first (`Touvron et al. 2022
    <https://arxiv.org/abs/2203.09795>`_).
    """

    attn: tuple[nn.Module, ...]
    mlp: tuple[nn.Module, ...]


def find_branches(block: nn.Module) -> Branches | None:
    """Return the ends of a block's branches, or None where none are known.

    A block in which attention and MLP are projected and added at once (`Dehghani et al. 2023
    <https://arxiv.org/abs/2302.05442>`_) has none: no part of it is what attention alone adds.
    """
    for names in _ENDS:
        attn, mlp = (getattr(block, name, None) for name in names)
        if isinstance(attn, nn.Module) and isinstance(mlp, nn.Module):
            return Branches((attn,), (mlp,))
    attns, mlps = (_side_by_side(block, name) for name in ("attns", "ffns"))
    return Branches(attns, mlps) if attns and mlps else None


def _side_by_side(block: nn.Module, name: str) -> tuple[nn.Module, ...]:
    parts = getattr(block, name, None)
    if not isinstance(parts, nn.ModuleList):
        return ()
    ends = [getattr(part, "drop_path", None) for part in parts]
    return tuple(end for end in ends if isinstance(end, nn.Module))


@dataclass(frozen=True)
class Site:
    """One attention module of a tapped block: module `part` of `parts`."""

    position: int
    part: int = 0
    parts: int = 1


class AttentionReader(Protocol):
    """Knows where a pass is, and takes attention as it is computed."""

    def tapped_site(self) -> Site | None:
        """Return the tapped attention module that this thread is inside of, if any."""

    def begin_attention(self, site: Site) -> None:
        """Take note that a module attends."""

    def emit_attention(self, site: Site, start: int, weights: Tensor) -> None:
        """Take (image, head, query, key) of the images from `start` on."""


class ExplicitAttention(TorchFunctionMode):
    """Answers ``scaled_dot_product_attention`` by its definition inside tapped blocks."""

    def __init__(self, reader: AttentionReader) -> None:
        super().__init__()
        self._reader = reader

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            site = self._reader.tapped_site()
            if site is not None:
                return self._attend(site, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        site: Site,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        self._reader.begin_attention(site)
        if is_causal:
            raise ModelError("causal attention cannot be tapped: vitfeat is for image encoders")
        if enable_gqa:  # neighbouring queries share a key and a value
            group = query.shape[1] // key.shape[1]
            key, value = (t.repeat_interleave(group, 1) for t in (key, value))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        per_image = query.shape[1] * query.shape[2] * key.shape[2] * 4
        budget = _CPU_BYTES if query.device.type == "cpu" else _GPU_BYTES
        step = max(1, budget // per_image)
        output: list[Tensor] = []
        for start in range(0, len(query), step):
            rows = slice(start, start + step)
            # Summed in float32 whatever autocast says, as fused kernels do: logits come to
            # hundreds, where bfloat16 counts in steps of 2.
            with torch.autocast(query.device.type, enabled=False):
                weights = (query[rows].float() * scale) @ key[rows].float().transpose(-2, -1)
            if attn_mask is not None:
                mask = attn_mask[rows] if attn_mask.ndim == 4 and len(attn_mask) > 1 else attn_mask
                if mask.dtype == torch.bool:
                    weights = weights.masked_fill(~mask, -math.inf)
                else:
                    weights = weights + mask
            weights = weights.softmax(-1)
            self._reader.emit_attention(site, start, weights)
            output.append(weights.to(value.dtype) @ value[rows])
        return output[0] if len(output) == 1 else torch.cat(output)
