"""Figures head by head: a panel for each model, a dot for every head by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitfeat.figures import style
from vitfeat.figures.curves import Curve, Panel, heading
from vitfeat.figures.models import Model
from vitfeat.figures.strips import Cell, Strips, Track, cell_height

MOST = 9
"""Models side by side."""


@dataclass(frozen=True, eq=False)
class Heads:
    """A metric of all heads of one model.

    Attributes
    ----------
    model
        Whose heads.
    layers
        Numbers of the layers, ascending.
    values
        (layer, head), NaN where a head has none; a single column for metrics of a whole layer.
    n_images
        That the values are of: the least of its heads.
    """

    model: Model
    layers: tuple[int, ...]
    values: NDArray[np.float64]
    n_images: int

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean over the heads that have a value, (layer,); NaN where none has."""
        held = np.isfinite(self.values)
        total, count = np.where(held, self.values, 0).sum(axis=1), held.sum(axis=1)
        return np.asarray(np.where(count, total / np.maximum(count, 1), np.nan))

    def curve(self) -> Curve:
        """Return the means, with the first and the third quartile of heads as the band."""
        bounds = np.full((len(self.layers), 2), np.nan)
        for place, heads in enumerate(self.values):
            if (held := heads[np.isfinite(heads)]).size:
                bounds[place] = np.quantile(held, (0.25, 0.75))
        low, high = bounds.T
        last = self.layers[-1]
        return Curve(self.model, self.layers, self.means, low, high, self.n_images, last)


@dataclass(frozen=True, eq=False)
class HeadPanel:
    """A metric of all heads of several models; models without values have none.

    Attributes
    ----------
    dataset, name, title, unit, rare
        As in :class:`vitfeat.figures.curves.Panel`.
    heads
        One a model.
    """

    dataset: str
    name: str
    title: str
    unit: str
    heads: Sequence[Heads]
    rare: bool = False

    def averaged(self) -> Panel:
        """Return the means over heads, for figures of lines."""
        curves = [heads.curve() for heads in self.heads]
        return Panel(self.dataset, self.name, self.title, self.unit, curves, rare=self.rare)

    @property
    def heading(self) -> str:
        """Title with unit."""
        return heading(self.title, self.unit)


class HeadRow(NamedTuple):
    """One dot of a figure head by head."""

    dataset: str
    metric: str
    unit: str
    model: str
    layer: int
    head: int
    value: float


def head_rows(panels: Iterable[HeadPanel]) -> Iterator[HeadRow]:
    """Return what panels draw, as rows of a table."""
    for panel in panels:
        for heads in panel.heads:
            for (place, head), value in np.ndenumerate(heads.values):
                layer = heads.layers[place]
                yield HeadRow(
                    panel.dataset,
                    panel.name,
                    panel.unit,
                    heads.model.id,
                    layer,
                    head,
                    float(value),
                )


def breakout(
    panels: Sequence[HeadPanel],
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw every head of every model as a dot by layer, on a scale common to all models.

    A short bar marks the mean over the heads of a layer. Below each model stand the numbers of its
    first and last layer.

    Parameters
    ----------
    panels
        A row each, from the top down.
    models
        Those with values are drawn, in this order.
    title, note, remarks
        Around the figure.
    """
    layers = {heads.model.id: heads.layers for panel in panels for heads in panel.heads}
    drawn = [model for model in models if model.id in layers]
    cell_of = {model.id: index for index, model in enumerate(drawn)}
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
            most=MOST,
            size=(min(1.5, max(0.78, 6.6 / max(len(drawn), 1))), cell_height(len(drawn), MOST)),
            across="layer",
            title=title,
            note=note,
            remarks=remarks,
        )
        for row, panel in enumerate(panels):
            for ax in strips.rows(row):
                ax.yaxis.set_major_locator(MaxNLocator(4))
            for heads in panel.heads:
                cell = cell_of[heads.model.id]
                ax = strips.ax(row, cell)
                colour = style.family_colour(heads.model.family)
                count, width = heads.values.shape
                places = (np.arange(count) + 0.5) / count
                x = np.repeat(strips.x(cell, places)[:, None], width, axis=1)
                ax.plot(
                    x.ravel(),
                    heads.values.ravel(),
                    ls="",
                    marker="o",
                    ms=1.9,
                    mew=0,
                    color=colour,
                    alpha=0.35,
                    label=heads.model.id,
                )
                half = 0.42 / count
                left, right = strips.x(cell, places - half), strips.x(cell, places + half)
                means = heads.means
                bars = ax.hlines(means, left, right, color=colour, lw=1.1, zorder=3)
                bars.set_label(f"means {heads.model.id}")
    return strips.figure


def _ends(layers: Sequence[int]) -> tuple[str, str]:
    return str(layers[0]), str(layers[-1]) if len(layers) > 1 else ""


def _limits(panel: HeadPanel) -> tuple[float, float]:
    values = [heads.values[np.isfinite(heads.values)] for heads in panel.heads]
    found = np.concatenate(values) if values else np.empty(0)
    if not found.size:
        return 0, 1
    low, high = float(found.min()), float(found.max())
    if low == high:
        low, high = min(0, 2 * low), max(0, 2 * high) or float(low == 0)
    margin = 0.06 * (high - low)
    return low - margin, high + margin
