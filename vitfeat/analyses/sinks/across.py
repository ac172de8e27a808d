"""The figures of attention on high-norm tokens across models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import Curves, Measure, Members, Point, Rank

SHARE, TOKENS, IMAGES = "sink_share", "high_norm", "high_norm_images"
"""Scores: the share of attention, of tokens (what uniform attention gives), of images with some."""

_RULES = {
    "absolute": "above 150",
    "median": "above 3 times their image's median",
    "mad": "above their image's median by 10 deviations",
}
_NORMS = {"last": "in the last layer", "own": "in the same layer"}


def _point(row: ScoreRow) -> Point | None:
    """Take the shares of heads, and of tokens, each by its features."""
    if row.score != TOKENS and not (row.score == SHARE and row.group):
        return None
    return Point(row.model, row.layer, row.features, row.n, row.value, member=row.group)


def _meaning(rows: Mapping[str, Sequence[ScoreRow]], labels: Mapping[str, str]) -> list[str]:
    """Say what the values are, what high-norm is in these tables, and which models have none."""
    every = [row for some in rows.values() for row in some]
    variants = dict.fromkeys(tuple(row.variant.split("/")) for row in every)
    high = " or ".join(f"{_RULES[rule]}, {_NORMS[norms]}" for rule, norms in variants)
    counted = {row.model for row in every if row.score == TOKENS}
    having = {row.model for row in every if row.score == TOKENS and row.value}
    none = [label for model, label in labels.items() if model in counted - having]
    return [
        f"Share of the attention to spatial tokens that goes to high-norm ones ({high}); "
        "uniform attention gives them their share of the tokens.",
        *([f"No high-norm tokens: {', '.join(none)}."] if none else []),
    ]


CURVES = Curves(
    title="Attention on high-norm tokens",
    figures={"by_layer": "by_layer", "families": "families", "breakout": "breakout"},
    point=_point,
    measures=(
        Measure("attn_cls", "CLS query", Rank.OVERVIEW, heads=True),
        Measure("attn_mean", "Mean of spatial queries", Rank.OVERVIEW, heads=True),
        Measure("spatial", "Uniform attention", Rank.OVERVIEW, heads=True),
    ),
    members=Members.HEADS,
    footnotes=_meaning,
)
