"""The figures of attention metrics across models."""

from __future__ import annotations

from vitfeat.analyses.rows import AttentionRow, read_attention
from vitfeat.analyses.scoring import Curves, Measure, Members, Point, Rank


def _point(row: AttentionRow) -> Point:
    return Point(
        row.model,
        row.layer,
        row.metric,
        row.n_images,
        row.mean,
        member="" if row.head is None else str(row.head),
        unit=row.unit,
    )


CURVES = Curves(
    title="Attention",
    figures={name: name for name in ("by_layer", "families", "breakout", "averages")},
    read=read_attention,
    point=_point,
    measures=(
        Measure("distance", "Attention distance", Rank.OVERVIEW, heads=True),
        Measure("spatial_to_cls", "Spatial-to-CLS attention", Rank.OVERVIEW, heads=True),
        Measure("deviation_positions", "Deviation over positions", Rank.OVERVIEW, heads=True),
        Measure("deviation_heads", "Deviation over heads", Rank.OVERVIEW),
        Measure("entropy_share", "Entropy over its maximum", Rank.OVERVIEW, heads=True),
        Measure("offset_length", "Length of the mean offset", Rank.OVERVIEW, heads=True),
        Measure("cls_to_cls", "CLS-to-CLS attention", Rank.SET),
        Measure("spatial_to_registers", "Spatial-to-register attention", Rank.SET, rare=True),
        Measure("cls_to_registers", "CLS-to-register attention", Rank.SET, rare=True),
        Measure("high_norm_median", "High-norm tokens, median rule", Rank.SET, rare=True),
        Measure("high_norm_mad", "High-norm tokens, MAD rule", Rank.SET, rare=True),
        Measure("high_norm_absolute", "High-norm tokens, absolute rule", Rank.SET, rare=True),
    ),
    members=Members.HEADS,
    common=False,
    pairs=(
        ("distance", "spatial_to_cls"),
        ("distance", "entropy_share"),
        ("distance", "deviation_positions"),
        ("deviation_heads", "deviation_positions"),
        ("spatial_to_cls", "entropy_share"),
        ("distance", "offset_length"),
    ),
    meaning="Maximum of the entropy: the logarithm of the number of tokens, which uniform "
    "attention has.",
)
