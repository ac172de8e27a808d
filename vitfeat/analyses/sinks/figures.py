"""Figures of attention on high-norm tokens across models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.sinks.job import SHARE, TOKENS
from vitfeat.figures.breakout import HeadPanel, Heads, breakout
from vitfeat.figures.curves import Panel, missing, source
from vitfeat.figures.families import by_family
from vitfeat.figures.lines import Section, by_layer
from vitfeat.figures.models import Model

QUERIES: Mapping[str, str] = {
    "attn_cls": "CLS query",
    "attn_mean": "Mean of spatial queries",
}
"""Features in the order of the figures, and what their shares are called there."""

CHANCE = "Uniform attention"
"""What the share of tokens is called."""

TITLE = "Attention on high-norm tokens"

BAND = "Bands: the quartiles of heads."

_RULES = {
    "absolute": "above 150",
    "median": "above 3 times their image's median",
    "mad": "above their image's median by 10 deviations",
}
_NORMS = {"last": "in the last layer", "own": "in the same layer"}


def panels(dataset: str, rows: Sequence[ScoreRow], models: Sequence[Model]) -> list[HeadPanel]:
    """Put the shares of heads together, a panel a query, and last the share of tokens.

    Parameters
    ----------
    dataset
        Its name.
    rows
        Of all models.
    models
        Those to draw.
    """
    found: defaultdict[tuple[str, str], list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.score == TOKENS or (row.score == SHARE and row.group):
            found[row.features, row.model].append(row)
    names = {**QUERIES, "spatial": CHANCE}
    held = {features for features, _ in found}
    return [
        HeadPanel(
            dataset,
            features,
            name,
            "",
            [_heads(m, found[features, m.id]) for m in models if (features, m.id) in found],
        )
        for features, name in names.items()
        if features in held
    ]


def layers_figure(
    drawn: Mapping[str, Sequence[HeadPanel]], rows: Sequence[ScoreRow], models: Sequence[Model]
) -> Figure:
    """Draw means over heads by layer, beside the share of tokens.

    Parameters
    ----------
    drawn
        Panels of each dataset, from :func:`panels`.
    rows
        What they were made from.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        No model has values.
    """
    averages = [averaged(some) for some in drawn.values()]
    sections = [Section(source(some), some, len(some), common=True) for some in averages]
    return by_layer(
        sections,
        models,
        title=TITLE,
        note=f"{_meaning(rows)} Means over heads; layers counted from 0.",
        band=BAND,
        remarks=_remarks([panel for some in averages for panel in some], rows, models),
    )


def families_figure(
    drawn: Sequence[HeadPanel], rows: Sequence[ScoreRow], models: Sequence[Model]
) -> Figure:
    """Draw means over heads over depth, a panel for each family.

    Parameters and errors are those of :func:`layers_figure`, of one dataset.
    """
    some = averaged(drawn)
    return by_family(
        some,
        models,
        title=f"{TITLE}, by family",
        note=f"{source(some)}. {_meaning(rows)} Means over heads. Over depth: 0 is the first "
        "layer, 1 the last.",
        remarks=_remarks(some, rows, models),
    )


def breakout_figure(
    drawn: Sequence[HeadPanel], rows: Sequence[ScoreRow], models: Sequence[Model]
) -> Figure:
    """Draw every head of every model by layer, and below them the share of tokens.

    Parameters and errors are those of :func:`layers_figure`, of one dataset.
    """
    some = averaged(drawn)
    return breakout(
        drawn,
        models,
        title=f"{TITLE}, head by head",
        note=f"{source(some)}. {_meaning(rows)} A dot for each head, a bar for the mean of a "
        "layer; layers from left to right.",
        remarks=_remarks(some, rows, models),
    )


def averaged(drawn: Sequence[HeadPanel]) -> list[Panel]:
    """Return the means over heads of panels."""
    return [panel.averaged() for panel in drawn]


def _meaning(rows: Sequence[ScoreRow]) -> str:
    """Say what the values are, and what high-norm is in some tables."""
    variants = dict.fromkeys(tuple(row.variant.split("/")) for row in rows)
    high = " or ".join(f"{_RULES[rule]}, {_NORMS[norms]}" for rule, norms in variants)
    return (
        f"Share of the attention to spatial tokens that goes to high-norm ones ({high}); "
        "uniform attention gives them their share of the tokens."
    )


def _remarks(some: Sequence[Panel], rows: Sequence[ScoreRow], models: Sequence[Model]) -> list[str]:
    """Say which models have no values, and which no high-norm tokens."""
    counted = {row.model for row in rows if row.score == TOKENS}
    having = {row.model for row in rows if row.score == TOKENS and row.value}
    none = [model.label for model in models if model.id in counted - having]
    return missing(some, models) + ([f"No high-norm tokens: {', '.join(none)}."] if none else [])


def _heads(model: Model, rows: Sequence[ScoreRow]) -> Heads:
    layers = sorted({row.layer for row in rows})
    heads = sorted({int(row.group or 0) for row in rows})
    values = np.full((len(layers), len(heads)), np.nan)
    for row in rows:
        values[layers.index(row.layer), heads.index(int(row.group or 0))] = row.value
    return Heads(model, tuple(layers), values, min(row.n for row in rows))
