"""Figures head by head: a panel for each model, a dot for every head by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitfeat.figures import style
from vitfeat.figures.curves import Panel, shown
from vitfeat.figures.models import Model
from vitfeat.figures.strips import TICKS, Cell, Strips, Track, cells_on_page

NARROWEST = 0.62
"""Of cells, in inches."""


def breakout(
    panels: Sequence[Panel],
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw every head of every model as a dot by layer, on a scale common to all models.

    A short bar marks the mean over the heads of a layer. Below each model stand the numbers of its
    first and last layer. Panels are rows, from the top down.
    """
    layers = {curve.model.id: curve.layers for panel in panels for curve in panel.curves}
    drawn = shown(models, panels)
    cell_of = {model.id: index for index, model in enumerate(drawn)}
    most, size = cells_on_page(len(drawn), NARROWEST, TICKS)
    with style.settings():
        strips = Strips(
            [
                Cell(
                    model.label,
                    style.family_colour(model.family),
                    _ends(layers[model.id]),
                )
                for model in drawn
            ],
            [Track(panel.name, panel.heading, _limits(panel)) for panel in panels],
            most=most,
            size=size,
            across="layer",
            title=title,
            note=note,
            remarks=remarks,
        )
        for row, panel in enumerate(panels):
            for ax in strips.rows(row):
                ax.yaxis.set_major_locator(MaxNLocator(4))
            for curve in panel.curves:
                cell = cell_of[curve.model.id]
                ax = strips.ax(row, cell)
                colour = style.family_colour(curve.model.family)
                count, width = curve.members.shape
                places = (np.arange(count) + 0.5) / count
                x = np.repeat(strips.x(cell, places)[:, None], width, axis=1)
                ax.plot(
                    x.ravel(),
                    curve.members.ravel(),
                    ls="",
                    marker="o",
                    ms=1.9,
                    mew=0,
                    color=colour,
                    alpha=0.35,
                    label=curve.model.id,
                )
                half = 0.42 / count
                left, right = strips.x(cell, places - half), strips.x(cell, places + half)
                bars = ax.hlines(curve.values, left, right, color=colour, lw=1.1, zorder=3)
                bars.set_label(f"means {curve.model.id}")
    return strips.figure


def _ends(layers: Sequence[int]) -> tuple[str, str]:
    return str(layers[0]), str(layers[-1]) if len(layers) > 1 else ""


def _limits(panel: Panel) -> tuple[float, float]:
    values = np.concatenate([np.empty(0), *(curve.members.ravel() for curve in panel.curves)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0, 1
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = min(0, 2 * low), max(0, 2 * high) or float(low == 0)
    margin = 0.06 * (high - low)
    return low - margin, high + margin
