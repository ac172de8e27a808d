"""How figures of similarity show models without CLS token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from vitfeat.figures.models import Model

MARK = "*"
"""Behind the label of a model whose CLS token something else stands in for."""


def stand_in_remarks(
    stand_ins: Collection[str], models: Sequence[Model], left_out: Collection[str]
) -> list[str]:
    """Say which models have no CLS token, something standing in for it or nothing (left out)."""
    remarks = []
    if stand_ins:
        remarks.append(f"{MARK} no CLS token: mean of spatial tokens in its place")
    if without := [model.label for model in models if model.id in left_out]:
        remarks.append(f"no CLS token: {', '.join(without)}")
    return remarks


def marked(models: Sequence[Model], stand_ins: Collection[str]) -> list[Model]:
    """Mark the labels of models whose CLS token something else stands in for."""
    return [replace(m, label=f"{m.label}{MARK}") if m.id in stand_ins else m for m in models]
