"""A block with two branches that are known in closed form."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two branches, as timm names their ends; each is a multiple of its skip."""

    def __init__(self, attn: float = 0.5, mlp: float = -0.25) -> None:
        super().__init__()
        self.drop_path1, self.drop_path2 = nn.Identity(), nn.Dropout(0.5)
        self.factors = (attn, mlp)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path1(self.factors[0] * tokens)
        return tokens + self.drop_path2(self.factors[1] * tokens)
