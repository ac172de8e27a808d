"""What of a block is read: the modules that attend, and the ends of its branches.

A transformer block adds twice: what attention makes of the block's input to that input, and what
the MLP makes of the sum to the sum. A branch is what is added: behind LayerScale, and behind the
norm where norms stand at the end of the branches. The last module of each branch gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

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
