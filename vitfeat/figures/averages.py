"""Figures of metric against metric: a point for each model, averaged over its whole network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitfeat.figures import style
from vitfeat.figures.curves import Panel, heading
from vitfeat.figures.fonts import text_width
from vitfeat.figures.labels import Placed, point_labels
from vitfeat.figures.looks import Look, looks, point_handles
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

MAX_NAMED = 12
"""No more points than this have their names beside them: more have a legend."""

LABEL_HEIGHT = 1.15 * style.SMALL_SIZE / 72

COLUMNS = 3
SIDE = (2.0, 1.75)
"""Of a panel, in inches."""

MARGIN = 0.12
"""Share of a panel's range that is free around its points, for labels."""


@dataclass(frozen=True, eq=False)
class Average:
    """A metric averaged over the layers of each model.

    Attributes
    ----------
    dataset, name, title, unit
        As in :class:`vitfeat.figures.curves.Panel`.
    values
        By model id; models without the metric are absent.
    n_images
        By model id, the least that a value is of.
    """

    dataset: str
    name: str
    title: str
    unit: str
    values: dict[str, float]
    n_images: dict[str, int]

    @property
    def heading(self) -> str:
        """Title with unit."""
        return heading(self.title, self.unit)


class AverageRow(NamedTuple):
    """A metric of a whole network."""

    dataset: str
    metric: str
    unit: str
    model: str
    n_images: int
    value: float


def averaged(panel: Panel) -> Average:
    """Average curves over layers, all of which count alike; layers without a value are left out."""
    values = {}
    for curve in panel.curves:
        held = curve.values[np.isfinite(curve.values)]
        if held.size:
            values[curve.model.id] = float(held.mean())
    counts = {curve.model.id: curve.n_images for curve in panel.curves}
    return Average(panel.dataset, panel.name, panel.title, panel.unit, values, counts)


def average_rows(averages: Iterable[Average]) -> Iterator[AverageRow]:
    """Return what is drawn, as rows of a table."""
    for one in averages:
        for model, value in one.values.items():
            yield AverageRow(one.dataset, one.name, one.unit, model, one.n_images[model], value)


def metric_against_metric(
    pairs: Sequence[tuple[Average, Average]],
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw the average of one metric against that of another, a point for each model.

    Few models have their names beside their points; more, or points that leave no room for them,
    have a legend below.

    Parameters
    ----------
    pairs
        Of each panel, the metric to the right and the one upwards. Models that lack one of them
        are not in the panel.
    models
        Order, labels, colours and sizes.
    title, note, remarks
        Around the figure.
    """
    look = looks(models)
    panels = [_panel(across, up, models) for across, up in pairs]
    present = {model.id for panel in panels for model in panel.models}
    drawn = [model for model in models if model.id in present]
    placed = [panel.place(look) for panel in panels] if len(drawn) <= MAX_NAMED else []
    direct = bool(placed) and not any(label is None for labels in placed for label in labels)
    legend = point_handles(drawn)
    if not direct:
        legend = [look[model.id].point_handle(model.label) for model in drawn]
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    with style.settings():
        sheet = Sheet(
            [Space(0.1, SIDE[1], 0.36)] * rows,
            [Space(0.54, SIDE[0], 0.14)] * columns,
            title=title,
            note=note,
            legend=legend,
            remarks=remarks,
        )
        for index, (panel, (across, up)) in enumerate(zip(panels, pairs, strict=True)):
            ax = sheet.axes(index // columns, index % columns)
            ax.set_label(f"{across.dataset}/{across.name}/{up.name}")
            _draw(ax, panel, look)
            if direct:
                _label(ax, panel, placed[index], look)
            ax.set_xlabel(across.heading, size=style.SMALL_SIZE, labelpad=1.5)
            ax.set_ylabel(up.heading, size=style.SMALL_SIZE, labelpad=2)
            ax.yaxis.set_label_coords(-0.42 / SIDE[0], 0.5)
    return sheet.figure


@dataclass(frozen=True, eq=False)
class _Panel:
    """Models of a panel, their values (model, 2), and the limits (2,) of both axes."""

    models: Sequence[Model]
    points: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def inches(self) -> list[tuple[float, float]]:
        """Return where points are, from the lower left corner."""
        places = (self.points - self.low) / (self.high - self.low) * SIDE
        return [(float(x), float(y)) for x, y in places]

    def place(self, look: dict[str, Look]) -> list[Placed | None]:
        """Find places for the models' names."""
        widths = [_width(model) for model in self.models]
        radius = max((look[model.id].points for model in self.models), default=0) / 72 / 2
        return point_labels(self.inches(), widths, LABEL_HEIGHT, SIDE, radius)


def _panel(across: Average, up: Average, models: Sequence[Model]) -> _Panel:
    here = [m for m in models if m.id in across.values and m.id in up.values]
    points = np.array([(across.values[m.id], up.values[m.id]) for m in here]).reshape(-1, 2)
    if not here:
        return _Panel(here, points, np.zeros(2), np.ones(2))
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.where(high > low, (high - low) * MARGIN, 0.5)
    return _Panel(here, points, low - room, high + room)


def _draw(ax: Axes, panel: _Panel, look: dict[str, Look]) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlim(panel.low[0], panel.high[0])
    ax.set_ylim(panel.low[1], panel.high[1])
    for model, (x, y) in zip(panel.models, panel.points, strict=True):
        one = look[model.id]
        # Large markers first, so that none hides a small one.
        ax.plot([x], [y], **one.point(), label=model.id, zorder=3 - one.points / 100)
    if not panel.models:
        ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", size=style.SMALL_SIZE)


def _label(ax: Axes, panel: _Panel, placed: Sequence[Placed | None], look: dict[str, Look]) -> None:
    leaders, colours = [], []
    for model, point, at in zip(panel.models, panel.inches(), placed, strict=True):
        if at is None:
            continue
        width, colour = _width(model), look[model.id].colour
        ax.text(
            (at.x + width / 2) / SIDE[0],
            (at.y + LABEL_HEIGHT / 2) / SIDE[1],
            model.label,
            transform=ax.transAxes,
            ha="center",
            va="center_baseline",
            size=style.SMALL_SIZE,
            color=colour,
        )
        if at.leads:
            nearest = (
                float(np.clip(point[0], at.x, at.x + width)),
                float(np.clip(point[1], at.y, at.y + LABEL_HEIGHT)),
            )
            leaders.append([np.divide(point, SIDE), np.divide(nearest, SIDE)])
            colours.append(colour)
    lines = LineCollection(leaders, colors=colours, lw=0.4, alpha=0.7, transform=ax.transAxes)
    ax.add_collection(lines, autolim=False)


def _width(model: Model) -> float:
    return text_width(model.label, style.SMALL_SIZE) + 0.02
