"""Figures of attention metrics across models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.rows import AttentionRow
from vitfeat.errors import AnalysisError
from vitfeat.figures.averages import Average, averaged, metric_against_metric
from vitfeat.figures.breakout import HeadPanel, Heads, breakout
from vitfeat.figures.curves import Panel, least, missing, source
from vitfeat.figures.families import by_family
from vitfeat.figures.lines import Section, by_layer
from vitfeat.figures.models import Model


@dataclass(frozen=True)
class Metric:
    """A metric of the figures.

    Attributes
    ----------
    name, title
        In the tables, and on figures.
    rare
        Whether only few kinds of models have it, so that its absence from all needs no word.
    """

    name: str
    title: str
    rare: bool = False


METRICS = (
    Metric("distance", "Attention distance"),
    Metric("spatial_to_cls", "Spatial-to-CLS attention"),
    Metric("deviation_positions", "Deviation over positions"),
    Metric("deviation_heads", "Deviation over heads"),
    Metric("entropy_share", "Entropy over its maximum"),
    Metric("offset_length", "Length of the mean offset"),
    Metric("cls_to_cls", "CLS-to-CLS attention"),
    Metric("spatial_to_registers", "Spatial-to-register attention", rare=True),
    Metric("cls_to_registers", "CLS-to-register attention", rare=True),
    Metric("high_norm_median", "High-norm tokens, median rule", rare=True),
    Metric("high_norm_mad", "High-norm tokens, MAD rule", rare=True),
    Metric("high_norm_absolute", "High-norm tokens, absolute rule", rare=True),
)
"""What is drawn by layer, in this order."""

MAIN = (
    "distance",
    "spatial_to_cls",
    "deviation_positions",
    "deviation_heads",
    "entropy_share",
    "offset_length",
)
"""What the overview of all datasets draws."""

OF_HEADS = ("distance", "spatial_to_cls", "deviation_positions", "entropy_share", "offset_length")
"""What is drawn head by head."""

PAIRS = (
    ("distance", "spatial_to_cls"),
    ("distance", "entropy_share"),
    ("distance", "deviation_positions"),
    ("deviation_heads", "deviation_positions"),
    ("spatial_to_cls", "entropy_share"),
    ("distance", "offset_length"),
)
"""Which metrics are drawn against one another: to the right, and upwards."""

BAND = "Bands: the middle half of heads."


def panels(dataset: str, rows: Iterable[AttentionRow], models: Sequence[Model]) -> list[HeadPanel]:
    """Put the rows of one dataset together, a panel for each metric.

    Parameters
    ----------
    dataset
        Its name.
    rows
        Of all models.
    models
        Those to draw.

    Returns
    -------
    list
        In the order of :data:`METRICS`; a rare metric only where some model has it.

    Raises
    ------
    AnalysisError
        Layers of a model with different numbers of heads, or a value given twice.
    """
    found: defaultdict[tuple[str, str], list[AttentionRow]] = defaultdict(list)
    for row in rows:
        found[row.metric, row.model].append(row)
    made = []
    for metric in METRICS:
        heads = [_heads(model, found[metric.name, model.id]) for model in models]
        held = [one for one in heads if one is not None]
        units = {row.unit for m in models for row in found[metric.name, m.id]}
        unit = ", ".join(sorted(units))
        if held or not metric.rare:
            made.append(HeadPanel(dataset, metric.name, metric.title, unit, held, metric.rare))
    return made


def layers_figure(panels: Sequence[Panel], models: Sequence[Model]) -> Figure:
    """Draw the metrics of one dataset by layer, means over heads.

    Parameters
    ----------
    panels
        Means over heads of what :func:`panels` gives.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        No model has values.
    """
    return by_layer(
        [Section("", panels, 3)],
        models,
        title="Attention by layer",
        note=f"{source(panels)}. Means over heads; layers counted from 0.",
        band=BAND,
        remarks=[*_remarks(panels), *missing(panels, models)],
    )


def families_figure(panels: Sequence[Panel], models: Sequence[Model]) -> Figure:
    """Draw the metrics of one dataset over depth, a panel for each family.

    Parameters and errors are those of :func:`layers_figure`.
    """
    return by_family(
        panels,
        models,
        title="Attention by family",
        note=f"{source(panels)}. Means over heads, over depth: 0 is the first layer, 1 the last.",
        remarks=[*_remarks(panels), *missing(panels, models)],
    )


def breakout_figure(panels: Sequence[HeadPanel], models: Sequence[Model]) -> Figure:
    """Draw every head of one dataset's models.

    Parameters
    ----------
    panels
        From :func:`panels`: those of :data:`OF_HEADS` are drawn.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        No model has values.
    """
    drawn = heads_drawn(panels)
    means = [panel.averaged() for panel in drawn]
    return breakout(
        drawn,
        models,
        title="Attention head by head",
        note=f"{source(means)}. A dot for each head, a bar for the mean of a layer; layers from "
        "left to right.",
        remarks=[*_remarks(means), *missing(means, models)],
    )


def heads_drawn(panels: Iterable[HeadPanel]) -> list[HeadPanel]:
    """Return the panels that are drawn head by head."""
    return [panel for panel in panels if panel.name in OF_HEADS]


def averages_drawn(panels: Iterable[Panel]) -> list[Average]:
    """Return the averages over layers of the metrics that are drawn against one another."""
    names = {name for pair in PAIRS for name in pair}
    return [averaged(panel) for panel in panels if panel.name in names]


def averages_figure(panels: Sequence[Panel], models: Sequence[Model]) -> Figure:
    """Draw metrics of whole networks against one another.

    Parameters and errors are those of :func:`layers_figure`.
    """
    found = {one.name: one for one in averages_drawn(panels)}
    drawn = [panel for panel in panels if panel.name in found]
    return metric_against_metric(
        [(found[across], found[up]) for across, up in PAIRS],
        models,
        title="Attention of whole networks",
        note=f"{source(drawn)}. Means over all layers and heads.",
        remarks=[*_remarks(drawn), *missing(drawn, models)],
    )


def overview_drawn(panels: Iterable[Panel]) -> list[Panel]:
    """Return the panels of the main metrics."""
    return [panel for panel in panels if panel.name in MAIN]


def overview(panels: Mapping[str, Sequence[Panel]], models: Sequence[Model]) -> Figure:
    """Draw the main metrics of all datasets by layer.

    Parameters
    ----------
    panels
        Of each dataset, means over heads of what :func:`panels` gives.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        A dataset without values.
    """
    drawn = {dataset: overview_drawn(some) for dataset, some in panels.items()}
    every = [panel for some in drawn.values() for panel in some]
    return by_layer(
        [Section(source(some), some, 3) for some in drawn.values()],
        models,
        title="Attention by layer",
        note="Means over heads; layers counted from 0.",
        band=BAND,
        remarks=[*_remarks(every), *missing(every, models)],
    )


def _remarks(panels: Iterable[Panel]) -> list[str]:
    """Say what the entropy is divided by, where it is drawn."""
    if not any(panel.name == "entropy_share" and panel.curves for panel in panels):
        return []
    return [
        "Maximum of the entropy: the logarithm of the number of tokens, which uniform attention "
        "has."
    ]


def _heads(model: Model, rows: Sequence[AttentionRow]) -> Heads | None:
    if not rows:
        return None
    cells = {(row.layer, row.head or 0): row.mean for row in rows}
    layers = tuple(sorted({row.layer for row in rows}))
    count = 1 + max(row.head or 0 for row in rows)
    wanted = [(layer, head) for layer in layers for head in range(count)]
    if len(rows) != len(wanted) or set(cells) != set(wanted):
        raise AnalysisError(
            f"{rows[0].metric} of {model.id} on {rows[0].dataset} has {len(rows)} values for "
            f"{len(layers)} layers of {count} heads: compute its table again"
        )
    values = np.array([cells[cell] for cell in wanted]).reshape(len(layers), count)
    return Heads(model, layers, values, least(row.n_images for row in rows))
