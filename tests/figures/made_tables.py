"""Rows whose values tell where they come from, for figures across models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitfeat.analyses.rows import AttentionRow, ResidualCkaRow, ResidualNormRow, ScoreRow
from vitfeat.figures.models import Model


@dataclass(frozen=True)
class Made:
    """A model with its number of layers and heads."""

    model: Model
    depth: int = 6
    heads: int = 4
    has_cls: bool = True


DEMO = [
    Made(Model(f"demo-{family}", label, family, "6x64/4@32"))
    for family, label in (
        ("supervised", "Supervised"),
        ("clip", "CLIP"),
        ("dino", "DINO"),
        ("moco", "MoCo-v3"),
        ("mae", "MAE"),
        ("beit", "BEiT"),
        ("random", "Untrained"),
    )
]

_SIZES = {
    (
        "supervised",
        "Supervised",
    ): "S/32 S/16 B/32 B/16 B/8 L/16 B/32@384 B/16@384 L/32@384 L/16@384",
    ("clip", "CLIP"): "B/32 B/16 L/14 L/14@336",
    ("dino", "DINO"): "S/16 S/8 B/16 B/8",
    ("moco", "MoCo-v3"): "S/16 B/16",
    ("mae", "MAE"): "B/16 L/16 H/14",
    ("beit", "BEiT"): "B/16 L/16",
    ("random", "Untrained"): "B/16",
}
_SHAPES = {"S": (12, 6), "B": (12, 12), "L": (24, 16), "H": (32, 16)}

PAPER = [
    Made(
        Model(
            f"{family}-{size}", f"{label} {size}", family, size if "@" in size else f"{size}@224"
        ),
        *_SHAPES[size[0]],
    )
    for (family, label), sizes in _SIZES.items()
    for size in sizes.split()
]
"""The 26 models of Walmer et al. 2023."""


def models(made: Sequence[Made]) -> list[Model]:
    return [one.model for one in made]


_ATTENTION = {
    "distance": "image edges",
    "spatial_to_cls": "share of attention",
    "cls_to_cls": "share of attention",
    "deviation_positions": "share of attention",
    "entropy_share": "share of ln(tokens)",
    "offset_length": "patches",
    "deviation_heads": "share of attention",
    "high_norm_median": "share of tokens",
}


def value(model: str, *where: int) -> float:
    """A number from 0.1 to 0.9 that differs between models and places."""
    mixed = sum(map(ord, model))
    for place in where:
        mixed = (mixed * 31 + place * 7919 + 17) % 99_991
    return 0.1 + 0.8 * mixed / 99_991


def attention_rows(
    made: Sequence[Made], dataset: str = "digits", n_images: int = 599
) -> list[AttentionRow]:
    rows = []
    for one in made:
        for at, (metric, unit) in enumerate(_ATTENTION.items()):
            if "cls" in metric and not one.has_cls:
                continue
            if metric == "deviation_heads" and one.heads == 1:
                continue
            whole = metric in ("deviation_heads", "high_norm_median")
            for layer in range(one.depth):
                for head in (None,) if whole else range(one.heads):
                    mean = value(one.model.id, at, layer, head or 0)
                    rows.append(
                        AttentionRow(
                            one.model.id,
                            dataset,
                            layer,
                            head,
                            metric,
                            unit,
                            "zero",
                            None if whole else 0.0,
                            n_images,
                            mean,
                            0.1,
                        )
                    )
    return rows


def clustering_rows(
    made: Sequence[Made], dataset: str = "digits", seeds: int = 3
) -> list[ScoreRow]:
    rows = []
    for one in made:
        for a, features in enumerate(("cls", "mean") if one.has_cls else ("mean",)):
            for b, labels in enumerate(("", "_shuffled")):
                for c, score in enumerate(("nmi", "ari", "purity")):
                    for layer in range(one.depth):
                        scale = 0.1 if labels else 1
                        of_seeds = {
                            f"seed={seed}": scale * value(one.model.id, a, b, c, layer, seed)
                            for seed in range(seeds)
                        }
                        mean = float(np.mean(list(of_seeds.values())))
                        rows += [
                            ScoreRow(
                                "clustering",
                                one.model.id,
                                dataset,
                                layer,
                                features,
                                "k=10",
                                f"{score}{labels}",
                                group,
                                599,
                                number,
                            )
                            for group, number in {"": mean, **of_seeds}.items()
                        ]
    return rows


def norm_rows(made: Sequence[Made], dataset: str = "digits") -> list[ResidualNormRow]:
    return [
        ResidualNormRow(
            one.model.id,
            dataset,
            branch,
            ratio,
            layer,
            599,
            50 * value(one.model.id, a, b, layer) ** 3,
            0.3,
        )
        for one in made
        for a, branch in enumerate(("attn", "mlp"))
        for b, ratio in enumerate(("cls", "spatial", "spatial_tokens"))
        if one.has_cls or ratio != "cls"
        for layer in range(one.depth)
    ]


def cka_rows(
    made: Sequence[Made], dataset: str = "digits", tokens: Sequence[str] = ("cls", "spatial", "all")
) -> list[ResidualCkaRow]:
    rows = []
    for one in made:
        for a, branch in enumerate(("attn", "mlp")):
            for b, kind in enumerate(tokens):
                if kind == "cls" and not one.has_cls:
                    continue
                for i in range(one.depth):
                    for j in range(one.depth):
                        # The CLS token that enters the first block is a constant.
                        constant = kind == "cls" and branch == "attn" and i == 0
                        cka = np.nan if constant else value(one.model.id, a, b, i, j)
                        rows.append(
                            ResidualCkaRow(one.model.id, dataset, branch, kind, i, j, 500, cka)
                        )
    return rows
