"""The figures of what skip connections carry, across models: norm ratios and CKA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vitfeat.analyses.rows import (
    ResidualCkaRow,
    ResidualNormRow,
    read_residual_cka,
    read_residual_norms,
)
from vitfeat.analyses.scoring import Curves, Measure, Members, Point, Rank
from vitfeat.figures.cka_values import TOKEN_NAMES

BRANCHES: Mapping[str, str] = {"attn": "Attention", "mlp": "MLP"}
"""Branches in the order of the figures, and what they are called there."""

_RATIOS: Mapping[str, str] = {
    "cls": "CLS token",
    "spatial": "spatial tokens together",
    "spatial_tokens": "mean over spatial tokens",
}
"""Ratios in the order of the figures, and what they are called there."""

_MAIN = ("cls", "spatial")


def _ratio(row: ResidualNormRow) -> Point | None:
    if row.ratio not in _RATIOS:
        return None
    return Point(
        row.model,
        row.layer,
        row.branch,
        row.n_images,
        row.mean,
        kind=row.ratio,
        deviation=row.deviation,
    )


def _same_block(row: ResidualCkaRow) -> Point | None:
    if row.layer_skip != row.layer_branch:
        return None
    score = f"cka/{row.branch}"
    return Point(
        row.model, row.layer_skip, score, row.n_images, row.cka, kind=row.tokens, unit="CKA"
    )


def _gaps(rows: Mapping[str, Sequence[ResidualCkaRow]], _: Mapping[str, str]) -> list[str]:
    """Say why curves have gaps, where some do."""
    why = (
        "Gaps: no CKA (nan) where a side is the same for all images, as the CLS token that enters "
        "block 0 is."
    )
    return [why] if any(math.isnan(row.cka) for some in rows.values() for row in some) else []


NORMS = Curves(
    title="Norm of the skip input over norm of the branch",
    figures={"norms": "by_layer", "families": "families"},
    suffix=".norms.csv",
    read=read_residual_norms,
    point=_ratio,
    measures=tuple(Measure(key, name, Rank.OVERVIEW) for key, name in BRANCHES.items()),
    kinds=_RATIOS,
    main_kinds=_MAIN,
    members=Members.IMAGES,
    common=False,
    log=True,
)

CKA = Curves(
    title="Linear CKA of skip input and branch of the same block",
    pictures={"cka": "vitfeat.analyses.residual.cka_figures:cka_figure"},
    suffix=".cka.csv",
    asked=lambda settings: bool(settings.tokens),
    read=read_residual_cka,
    point=_same_block,
    measures=tuple(Measure(f"cka/{key}", name, Rank.OVERVIEW) for key, name in BRANCHES.items()),
    kinds=TOKEN_NAMES,
    main_kinds=_MAIN,
    members=Members.NONE,
    footnotes=_gaps,
)
