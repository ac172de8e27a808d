"""Where a block adds its branches to its skips.

A transformer block adds twice: what attention makes of the block's input to that input, and what
the MLP makes of the sum to the sum. A branch is what is added: behind LayerScale, and behind the
norm where norms stand at the end of the branches. The last module of each branch gives it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

#: The block's input, and what its attention and its MLP add.
RESIDUAL_TAPS = ("block_input", "attn_branch", "mlp_branch")

# The last modules of both branches, by the names of the libraries. timm's stochastic depth stands
# behind everything and does nothing in evaluation; open_clip's blocks end in their LayerScale;
# Gemma's have one stochastic depth for both, behind the norms.
_ENDS = (("drop_path1", "drop_path2"), ("ls_1", "ls_2"), ("norm2", "norm4"))


@dataclass(frozen=True)
class Branches:
    """The modules that give what a block adds to its skips.

    Attributes
    ----------
    attn, mlp
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
