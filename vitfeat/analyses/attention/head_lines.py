"""Figures of one model's heads by layer: every head with the mean, and sorted within layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitfeat.analyses.attention.heat_maps import drawn_of, lacking, name_above, note_of, ranked
from vitfeat.figures import style
from vitfeat.figures.breakout import HeadPanel, Heads
from vitfeat.figures.fonts import text_width
from vitfeat.figures.lines import layer_ticks
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

Floats = NDArray[np.float64]

COLUMNS = 3
PANEL = (1.95, 1.2)
SORTED_PANEL = (6.6, 0.85)
"""Width and height of panels in inches."""

PALE = 0.5
"""Share of white in the heads' colour."""

FILLED = 0.84
"""Share of a layer's width that its sorted heads take."""


class LayerRow(NamedTuple):
    """A point of the figure by layer; `head` is empty for the mean over heads, or of a layer."""

    dataset: str
    model: str
    metric: str
    unit: str
    layer: int
    head: int | None
    n_images: int
    value: float


class SortedRow(NamedTuple):
    """A head at its rank within the layer, 0 the largest; both are empty for the mean of heads."""

    dataset: str
    model: str
    metric: str
    unit: str
    layer: int
    rank: int | None
    head: int | None
    value: float


def by_layer_figure(panels: Sequence[HeadPanel], model: Model) -> Figure:
    """Draw every metric of a model by layer: a dot for each head, a line through their means.

    Parameters
    ----------
    panels
        Metrics, those of whole layers too; other models in them are not drawn.
    model
        The one to draw.

    Raises
    ------
    AnalysisError
        The model has no values.
    """
    drawn = drawn_of(panels, model)
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    colour = style.family_colour(model.family)
    pale = style.lighter(colour, PALE)
    with style.settings():
        names = [
            max(text_width(panel.heading, 7) for panel, _ in drawn[column::columns])
            for column in range(columns)
        ]
        sheet = Sheet(
            [Space(0.22, PANEL[1], 0.34)] * rows,
            [Space(0.4, PANEL[0], max(0.1, name - PANEL[0] + 0.05)) for name in names],
            title=f"{model.label}: attention by layer",
            note=f"{note_of(drawn)}. Layers counted from 0.",
            legend=_handles(drawn, colour, pale),
            remarks=lacking(panels, model),
        )
        for index, (panel, heads) in enumerate(drawn):
            ax = sheet.axes(index // columns, index % columns)
            ax.set_label(panel.name)
            if heads.values.shape[1] > 1:
                layers = np.repeat(heads.layers, heads.values.shape[1])
                dots: dict[str, Any] = {
                    "ls": "none",
                    "marker": "o",
                    "ms": 2.2,
                    "mew": 0,
                    "clip_on": False,
                }
                ax.plot(layers, heads.values.ravel(), color=pale, label="heads", **dots)
            line: dict[str, Any] = {"marker": "o", "ms": 2.8, "mew": 0, "lw": 1.2, "clip_on": False}
            ax.plot(heads.layers, heads.means, color=colour, label="means", zorder=3, **line)
            _panel(ax, panel, heads)
            last = max(heads.layers[-1], 1)
            ax.set_xlim(-0.04 * last, 1.04 * last)
            ax.set_xticks(layer_ticks(heads.layers[-1]))
            if index + columns >= len(drawn):
                ax.set_xlabel("layer", size=style.SMALL_SIZE, labelpad=1.5)
    return sheet.figure


def _handles(drawn: Sequence[tuple[HeadPanel, Heads]], colour: str, pale: str) -> list[Line2D]:
    several = [heads.values.shape[1] > 1 for _, heads in drawn]
    dot = Line2D([], [], color=pale, ls="none", marker="o", ms=2.2, mew=0, label="a head")
    line = Line2D([], [], color=colour, marker="o", ms=2.8, mew=0, lw=1.2)
    if not any(several):
        line.set_label("the layer")
        return [line]
    line.set_label("mean over heads" if all(several) else "mean over heads, or value of a layer")
    return [dot, line]


def _panel(ax: Axes, panel: HeadPanel, heads: Heads) -> None:
    name_above(ax, panel.heading)
    ax.spines[["top", "right"]].set_visible(False)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_ylim(_limits(heads.values))


def _limits(values: Floats) -> tuple[float, float]:
    """Return limits with some room, from 0 where values come near it."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low == high:
        return (low - abs(low) / 2, low + abs(low) / 2) if low else (0, 1)
    room = 0.06 * (high - low)
    return 0 if 0 <= low < 0.35 * high else low - room, high + room


def layer_rows(panels: Sequence[HeadPanel], model: Model) -> Iterator[LayerRow]:
    """Return what :func:`by_layer_figure` draws, as rows of a table.

    Parameters and errors are those of :func:`by_layer_figure`.
    """
    for panel, heads in drawn_of(panels, model):
        about = panel.dataset, model.id, panel.name, panel.unit
        for layer, values, mean in zip(heads.layers, heads.values, heads.means, strict=True):
            if len(values) > 1:
                for head, value in enumerate(values.tolist()):
                    yield LayerRow(*about, layer, head, heads.n_images, value)
            yield LayerRow(*about, layer, None, heads.n_images, float(mean))


def sorted_figure(panels: Sequence[HeadPanel], model: Model) -> Figure:
    """Draw the heads of each layer by falling value, layers from left to right.

    Parameters
    ----------
    panels
        Metrics of heads; other models in them are not drawn.
    model
        The one to draw.

    Raises
    ------
    AnalysisError
        The model has no values.
    """
    drawn = drawn_of(panels, model)
    colour = style.family_colour(model.family)
    with style.settings():
        rows = [Space(0.24, SORTED_PANEL[1], 0.17)] * (len(drawn) - 1)
        sheet = Sheet(
            [*rows, Space(0.24, SORTED_PANEL[1], 0.32)],
            [Space(0.4, SORTED_PANEL[0], 0.1)],
            title=f"{model.label}: heads sorted within layers",
            note=f"{note_of(drawn)}. Dots: heads, the largest at the left of each layer; bars: "
            "means over the heads of a layer. Layers counted from 0.",
            remarks=lacking(panels, model),
        )
        for row, (panel, heads) in enumerate(drawn):
            ax = sheet.axes(row)
            ax.set_label(panel.name)
            _sorted(ax, heads, colour)
            _panel(ax, panel, heads)
            if row == len(drawn) - 1:
                ax.set_xlabel("layer", size=style.SMALL_SIZE, labelpad=1.5)
    return sheet.figure


def _sorted(ax: Axes, heads: Heads, colour: str) -> None:
    depth, count = heads.values.shape
    values = np.take_along_axis(heads.values, ranked(heads.values), axis=1)
    inside = FILLED * ((np.arange(count) + 0.5) / count - 0.5)
    places = np.arange(depth)[:, None] + inside
    size = float(np.clip(0.7 * SORTED_PANEL[0] * 72 * FILLED / (depth * count), 1.0, 3.2))
    for place in range(1, depth, 2):
        ax.axvspan(place - 0.5, place + 0.5, color="#F1F1F1", lw=0, zorder=0)
    half = FILLED / 2
    ends = [[(i - half, mean), (i + half, mean)] for i, mean in enumerate(heads.means)]
    means = LineCollection(ends, colors=style.lighter(colour, 0.4), lw=1.0)
    means.set_label("means")
    ax.add_collection(means, autolim=False)
    curves = LineCollection([np.column_stack(c) for c in zip(places, values, strict=True)])
    curves.set(color=colour, lw=0.6)
    curves.set_label("curves")
    ax.add_collection(curves, autolim=False)
    dots: dict[str, Any] = {"ls": "none", "marker": "o", "ms": size, "mew": 0, "clip_on": False}
    ax.plot(places.ravel(), values.ravel(), color=colour, label="heads", **dots)
    ax.set_xlim(-0.5, depth - 0.5)
    # A number takes a tenth of an inch: every layer has one.
    ax.set_xticks(range(depth), [str(layer) for layer in heads.layers])
    ax.tick_params(axis="x", length=0)


def sorted_rows(panels: Sequence[HeadPanel], model: Model) -> Iterator[SortedRow]:
    """Return what :func:`sorted_figure` draws, as rows of a table.

    Parameters and errors are those of :func:`sorted_figure`.
    """
    for panel, heads in drawn_of(panels, model):
        about = panel.dataset, model.id, panel.name, panel.unit
        orders = ranked(heads.values).tolist()
        for layer, order, values, mean in zip(
            heads.layers, orders, heads.values, heads.means, strict=True
        ):
            for rank, head in enumerate(order):
                yield SortedRow(*about, layer, rank, head, float(values[head]))
            yield SortedRow(*about, layer, None, None, float(mean))
