"""How figures of similarity show models without CLS token."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from vitfeat.figures.models import Model

MARK = "*"
"""Behind the label of a model whose CLS token something else stands in for."""


class OfTokens(Protocol):
    """Values of models, some of whose tokens others stand in for."""

    @property
    def stand_ins(self) -> frozenset[str]:
        """Ids of these models."""


def with_fallbacks(
    blocks: Iterable[OfTokens], models: Sequence[Model], left_out: Collection[str] = ()
) -> tuple[list[Model], list[str]]:
    """Mark the models that something stands in for; return them all, and remarks that say so.

    `left_out` are ids of models without CLS token that nothing stands in for.
    """
    stand_ins = {name for block in blocks for name in block.stand_ins}
    shown = [replace(m, label=f"{m.label}{MARK}") if m.id in stand_ins else m for m in models]
    remarks = []
    if any(model.id in stand_ins for model in models):
        remarks.append(f"{MARK} no CLS token: mean of spatial tokens in its place")
    if without := [model.label for model in models if model.id in left_out]:
        remarks.append(f"no CLS token: {', '.join(without)}")
    return shown, remarks
