"""Figures of measure against measure: a point for each model, averaged over its whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitfeat.figures import style
from vitfeat.figures.curves import Panel, network_means
from vitfeat.figures.looks import Look, looks, point_handles
from vitfeat.figures.models import Model
from vitfeat.figures.point_names import places_of, write_names
from vitfeat.figures.sheet import Sheet, Space

MAX_NAMED = 12
"""No more points than this have their names beside them: more have a legend."""

COLUMNS = 3
SIDE = (2.0, 1.75)
"""Of a panel, in inches."""

MARGIN = 0.12
"""Share of a panel's range that is free around its points, for labels."""


def measure_against_measure(
    pairs: Sequence[tuple[Panel, Panel]],
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw the average of one measure (to the right) against that of another (upwards).

    A point for each model that has both. Few models have their names beside their points; more, or
    points that leave no room for them, have a legend below.
    """
    look = looks(models)
    panels = [_panel(across, up, models) for across, up in pairs]
    present = {model.id for panel in panels for model in panel.models}
    drawn = [model for model in models if model.id in present]
    radius = max((look[model.id].points for model in drawn), default=0) / 72 / 2
    placed = [
        places_of(panel.inches(), panel.labels, SIDE, radius)
        for panel in panels
        if len(drawn) <= MAX_NAMED
    ]
    direct = bool(placed) and not any(label is None for labels in placed for label in labels)
    legend = point_handles(drawn)
    if not direct:
        legend = [look[model.id].point_handle(model.label) for model in drawn]
    columns = min(style.side_by_side(COLUMNS), len(pairs))
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
                colours = [look[model.id].colour for model in panel.models]
                write_names(ax, panel.inches(), panel.labels, colours, placed[index])
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

    @property
    def labels(self) -> list[str]:
        """The models' names."""
        return [model.label for model in self.models]

    def inches(self) -> list[tuple[float, float]]:
        """Return where points are, from the lower left corner."""
        places = (self.points - self.low) / (self.high - self.low) * SIDE
        return [(float(x), float(y)) for x, y in places]


def _panel(across: Panel, up: Panel, models: Sequence[Model]) -> _Panel:
    to_right, upwards = network_means(across), network_means(up)
    here = [m for m in models if m.id in to_right and m.id in upwards]
    points = np.array([(to_right[m.id], upwards[m.id]) for m in here]).reshape(-1, 2)
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
