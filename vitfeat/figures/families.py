"""Figures by family: a panel for each, with all its sizes, over the networks' depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vitfeat.figures import style
from vitfeat.figures.curves import Panel, shown
from vitfeat.figures.labels import drawn_width
from vitfeat.figures.lines import set_scale, y_limits
from vitfeat.figures.looks import family_title, looks, reference_look, size_handles
from vitfeat.figures.models import Model
from vitfeat.figures.strips import TICKS, Cell, Strips, Track, cells_on_page

NARROWEST = 0.7
"""Of cells, in inches."""

MARKED = 6
"""Markers on a curve: with more, those of a family's sizes would hide one another."""

OTHERS = "#D4D4D4"
"""Of the other families' curves behind a family's own."""


def by_family(
    panels: Sequence[Panel],
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw metrics over depth, a panel for each family.

    Depth runs from the first layer (0) to the last (1), so that networks of any size compare.
    Lines and markers tell sizes apart; the curves of all other families are grey behind. Panels are
    rows; families come in the order of their first model.
    """
    drawn = shown(models, panels)
    look = looks(models)
    families: dict[str, list[Model]] = {}
    for model in drawn:
        families.setdefault(model.family, []).append(model)
    legend: list[Artist] = list(size_handles(drawn))
    if len(families) > 1:
        legend.append(Line2D([], [], color=OTHERS, lw=0.8, label="other families"))
    for name in dict.fromkeys(panel.baseline for panel in panels if panel.baselines):
        legend.append(reference_look().handle(name))
    ticks = max(TICKS, *map(_numbers_width, panels))
    most, size = cells_on_page(len(families), NARROWEST, ticks)
    with style.settings():
        strips = Strips(
            [
                Cell(family_title(some), style.family_colour(family), ("0", "1"))
                for family, some in families.items()
            ],
            [Track(panel.name, panel.heading, y_limits(panel, bands=False)) for panel in panels],
            most=most,
            size=size,
            across="depth",
            ticks=ticks,
            title=title,
            note=note,
            legend=legend,
            remarks=remarks,
        )
        for row, panel in enumerate(panels):
            for ax in strips.rows(row):
                set_scale(ax, panel, y_limits(panel, bands=False))
            for cell, family in enumerate(families):
                ax = strips.ax(row, cell)
                others = [
                    np.column_stack([strips.x(cell, curve.depth), curve.values])
                    for curve in panel.curves
                    if curve.model.family != family
                ]
                behind = LineCollection(others, colors=OTHERS, lw=0.6, zorder=1)
                ax.add_collection(behind, autolim=False)
                for curve in panel.baselines:
                    if curve.model.family == family:
                        properties = reference_look().drawn(0.8)
                        ax.plot(strips.x(cell, curve.depth), curve.values, **properties)
                for curve in panel.curves:
                    if curve.model.family == family:
                        ax.plot(
                            strips.x(cell, curve.depth),
                            curve.values,
                            **look[curve.model.id].drawn(),
                            markevery=-(-len(curve.layers) // MARKED),
                            label=curve.model.id,
                            zorder=3,
                        )
    return strips.figure


def _numbers_width(panel: Panel) -> float:
    """Return how wide the numbers beside a row are, in inches, with room around them."""
    ax = Figure().subplots()
    low, high = y_limits(panel, bands=False)
    set_scale(ax, panel, (low, high))
    numbers = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    texts = [label.get_text() for at, label in numbers if low <= at <= high]
    return max(map(drawn_width, filter(None, texts)), default=0.0) + 0.07
