"""Figure of one model's metrics against one another, head by head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitfeat.analyses.attention.heat_maps import drawn_of, lacking, note_of
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.breakout import HeadPanel, Heads
from vitfeat.figures.lines import layer_ticks
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

METRICS = ("distance", "spatial_to_cls", "deviation_positions", "entropy_share")
"""What is drawn against one another."""

COLUMNS = 3
SIDE = (1.85, 1.6)
"""Of a panel, in inches."""

DARKEST, LIGHTEST = 0.0, 0.9
"""Part of the colour map that can be seen on white."""

MARGIN = 0.06


class PairRow(NamedTuple):
    """A point of the figure."""

    dataset: str
    model: str
    metric_x: str
    metric_y: str
    layer: int
    head: int
    x: float
    y: float


def pairs_of(
    panels: Sequence[HeadPanel], model: Model
) -> list[tuple[tuple[HeadPanel, Heads], tuple[HeadPanel, Heads]]]:
    """Return which metrics of a model are drawn against one another.

    Raises
    ------
    AnalysisError
        The model has fewer than two of them.
    """
    held = {p.name: (p, heads) for p, heads in drawn_of(panels, model)}
    names = [name for name in METRICS if name in held]
    if len(names) < 2:
        raise AnalysisError(
            f"{model.id} has values of {' and '.join(names) or 'none'} of {', '.join(METRICS)}: "
            "metrics against one another need two"
        )
    return [(held[a], held[b]) for a, b in combinations(names, 2)]


def pairs_figure(panels: Sequence[HeadPanel], model: Model) -> Figure:
    """Draw metrics of a model against one another, a point for each head, coloured by layer.

    Parameters
    ----------
    panels
        Metrics of heads; other models in them are not drawn.
    model
        The one to draw.

    Raises
    ------
    AnalysisError
        As :func:`pairs_of`.
    """
    pairs = pairs_of(panels, model)
    drawn = drawn_of(panels, model)
    layers = drawn[0][1].layers
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    metrics = [panel for panel in panels if panel.name in METRICS]
    with style.settings():
        spaces = [Space(0.52, SIDE[0], 0.12)] * (columns - 1)
        sheet = Sheet(
            [Space(0.1, SIDE[1], 0.38)] * rows,
            [*spaces, Space(0.52, SIDE[0], 0.75)],
            title=f"{model.label}: metrics of heads against one another",
            note=f"{note_of(drawn)}. A point for each head.",
            remarks=lacking(metrics, model),
        )
        for index, (across, up) in enumerate(pairs):
            ax = sheet.axes(index // columns, index % columns)
            _draw(ax, across, up)
        _colour_bar(sheet, layers)
    return sheet.figure


def _colours(count: int) -> Colormap:
    shades = np.linspace(DARKEST, LIGHTEST, count)
    return ListedColormap(colormaps["viridis"](shades))


def _draw(ax: Axes, across: tuple[HeadPanel, Heads], up: tuple[HeadPanel, Heads]) -> None:
    (panel_x, heads_x), (panel_y, heads_y) = across, up
    ax.set_label(f"{panel_x.name}/{panel_y.name}")
    depth, count = heads_x.values.shape
    colours = _colours(depth)(np.repeat(np.arange(depth), count))
    x, y = heads_x.values.ravel(), heads_y.values.ravel()
    ax.scatter(x, y, s=11, c=colours, lw=0.25, edgecolors="white", zorder=3)
    ax.set_xlim(_limits(x))
    ax.set_ylim(_limits(y))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel(panel_x.heading, size=style.SMALL_SIZE, labelpad=1.5)
    ax.set_ylabel(panel_y.heading, size=style.SMALL_SIZE)
    ax.yaxis.set_label_coords(-0.42 / SIDE[0], 0.5)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = MARGIN * (high - low) or 0.5
    return low - room, high + room


def _colour_bar(sheet: Sheet, layers: Sequence[int]) -> None:
    left, top = sheet.right_of(0)
    box = sheet.box(left + 0.2, top + 0.15, 0.12, SIDE[1] - 0.15)
    count = len(layers)
    norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
    bar = sheet.figure.colorbar(ScalarMappable(norm, _colours(count)), cax=box)
    ticks = layer_ticks(count - 1)
    bar.set_ticks(ticks, labels=[str(layers[tick]) for tick in ticks])
    box.minorticks_off()
    box.set_title("layer", size=style.SMALL_SIZE, loc="left", pad=4)


def pair_rows(panels: Sequence[HeadPanel], model: Model) -> Iterator[PairRow]:
    """Return the points as rows of a table; heads that lack one of the values have none.

    Parameters and errors are those of :func:`pairs_figure`.
    """
    for (panel_x, heads_x), (panel_y, heads_y) in pairs_of(panels, model):
        for (place, head), x in np.ndenumerate(heads_x.values):
            y = heads_y.values[place, head]
            if np.isfinite(x) and np.isfinite(y):
                names = panel_x.name, panel_y.name
                layer = heads_x.layers[place]
                yield PairRow(panel_x.dataset, model.id, *names, layer, head, float(x), float(y))
