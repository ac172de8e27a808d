"""Figures of one model's heads: by layer, sorted within layers, as heat maps, and in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.curves import Curve, Panel, images_text
from vitfeat.figures.fonts import text_width
from vitfeat.figures.lines import layer_ticks
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space, above

Floats = NDArray[np.float64]
Drawn = tuple[Panel, Curve]

COLUMNS = 3
LAYER_PANEL, SORTED_PANEL, PAIR_PANEL = (1.95, 1.2), (6.6, 0.85), (1.85, 1.6)
"""Width and height of panels in inches."""

PALE = 0.5
"""Share of white in the heads' colour."""

FILLED = 0.84
"""Share of a layer's width that its sorted heads take."""

CELL, NARROW, WIDE = 0.2, 1.25, 1.4
"""Inches of a heat map's cell where there is room, and of a panel at least and at most across."""

LEAST = 0.085
"""Inches of a cell's height at least."""

HEAT_ROWS = (
    ("numbered", "Heads as numbered in the model", "head"),
    ("sorted", "Heads sorted within each layer, largest first", "rank within the layer"),
)

PAIRED = ("distance", "spatial_to_cls", "deviation_positions", "entropy_share")
"""What is drawn against one another."""

LIGHTEST = 0.9
"""Part of the colour map that can be seen on white."""


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


class HeatRow(NamedTuple):
    """A cell of the heat maps, with the ends of its metric's scale."""

    dataset: str
    model: str
    metric: str
    unit: str
    layer: int
    head: int
    rank: int
    value: float
    scale_low: float
    scale_high: float


class PairRow(NamedTuple):
    """A point of the figure of pairs of metrics."""

    dataset: str
    model: str
    metric_x: str
    metric_y: str
    layer: int
    head: int
    x: float
    y: float


def drawn_of(panels: Sequence[Panel], model: Model) -> list[Drawn]:
    """Return the metrics that some head of a model has a value of, with its heads."""
    drawn = [
        (panel, heads)
        for panel in panels
        for heads in panel.curves
        if heads.model.id == model.id and np.isfinite(heads.members).any()
    ]
    if not drawn:
        raise AnalysisError(
            f"no attention metrics of {model.id}: compute its table (vitfeat run attention)"
        )
    return drawn


def ranked(values: Floats) -> NDArray[np.int64]:
    """Return the heads of each layer by falling value, (layer, rank) of (layer, head).

    NaN comes last, equal values stay in the heads' order.
    """
    return np.argsort(-values, axis=1, kind="stable")


def common_scale(panel: Panel) -> tuple[float, float]:
    """Return the least and the largest value over all heads of all models of a metric."""
    values = np.concatenate([heads.members.ravel() for heads in panel.curves])
    held = values[np.isfinite(values)]
    return float(held.min()), float(held.max())


def _sheet(
    panels: Sequence[Panel],
    model: Model,
    rows: Sequence[Space],
    columns: Sequence[Space],
    title: str,
    note: str,
    **more: Any,
) -> Sheet:
    """Begin a figure that says what values are averaged over, and what the model does not have."""
    drawn = drawn_of(panels, model)
    images = images_text(heads.n_images for _, heads in drawn)
    held = {panel.name for panel, _ in drawn}
    names = [panel.title for panel in panels if panel.name not in held and not panel.rare]
    lacking = [f"The model has no values of: {', '.join(names)}."] if names else []
    return Sheet(
        rows,
        columns,
        title=f"{model.label}: {title}",
        note=f"{drawn[0][0].dataset}, means over {images}. {note}",
        remarks=[*more.pop("remarks", ()), *lacking],
        **more,
    )


def by_layer_figure(panels: Sequence[Panel], model: Model) -> Figure:
    """Draw every metric of a model by layer: a dot for each head, a line through their means."""
    drawn = drawn_of(panels, model)
    columns = min(COLUMNS, len(drawn))
    colour = style.family_colour(model.family)
    pale = style.lighter(colour, PALE)
    width, height = LAYER_PANEL
    dots: dict[str, Any] = {"color": pale, "ls": "none", "marker": "o", "ms": 2.2, "mew": 0}
    line: dict[str, Any] = {"color": colour, "marker": "o", "ms": 2.8, "mew": 0, "lw": 1.2}
    several = [heads.members.shape[1] > 1 for _, heads in drawn]
    of_layers = "mean over heads" if all(several) else "mean over heads, or value of a layer"
    legend = [Line2D([], [], **line, label=of_layers if any(several) else "the layer")]
    if any(several):
        legend.insert(0, Line2D([], [], **dots, label="a head"))
    with style.settings():
        names = [
            max(text_width(panel.heading, 7) for panel, _ in drawn[column::columns])
            for column in range(columns)
        ]
        sheet = _sheet(
            panels,
            model,
            [Space(0.22, height, 0.34)] * -(-len(drawn) // columns),
            [Space(0.4, width, max(0.1, name - width + 0.05)) for name in names],
            "attention by layer",
            "Layers counted from 0.",
            legend=legend,
        )
        for index, (panel, heads) in enumerate(drawn):
            ax = _panel(sheet, divmod(index, columns), panel, heads)
            if several[index]:
                layers = np.repeat(heads.layers, heads.members.shape[1])
                ax.plot(layers, heads.members.ravel(), **dots, clip_on=False, label="heads")
            means = heads.values
            ax.plot(heads.layers, means, **line, clip_on=False, label="means", zorder=3)
            last = max(heads.layers[-1], 1)
            ax.set_xlim(-0.04 * last, 1.04 * last)
            ax.set_xticks(layer_ticks(heads.layers[-1]))
            if index + columns >= len(drawn):
                ax.set_xlabel("layer", size=style.SMALL_SIZE, labelpad=1.5)
    return sheet.figure


def _panel(sheet: Sheet, place: tuple[int, int], panel: Panel, heads: Curve) -> Axes:
    """Add the panel of a metric, with some room around values, from 0 where they come near it."""
    ax = sheet.axes(*place)
    ax.set_label(panel.name)
    above(ax, panel.heading, 4, size=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    low, high = float(np.nanmin(heads.members)), float(np.nanmax(heads.members))
    if low == high:
        ax.set_ylim((low - abs(low) / 2, low + abs(low) / 2) if low else (0, 1))
    else:
        room = 0.06 * (high - low)
        ax.set_ylim(0 if 0 <= low < 0.35 * high else low - room, high + room)
    return ax


def layer_rows(panels: Sequence[Panel], model: Model) -> Iterator[LayerRow]:
    """Return what :func:`by_layer_figure` draws, as rows of a table."""
    for panel, heads in drawn_of(panels, model):
        about = panel.dataset, model.id, panel.name, panel.unit
        for layer, values, mean in zip(heads.layers, heads.members, heads.values, strict=True):
            if len(values) > 1:
                for head, value in enumerate(values.tolist()):
                    yield LayerRow(*about, layer, head, heads.n_images, value)
            yield LayerRow(*about, layer, None, heads.n_images, float(mean))


def sorted_figure(panels: Sequence[Panel], model: Model) -> Figure:
    """Draw the heads of each layer by falling value, layers from left to right."""
    drawn = drawn_of(panels, model)
    colour = style.family_colour(model.family)
    width, height = SORTED_PANEL
    with style.settings():
        rows = [Space(0.24, height, 0.17)] * (len(drawn) - 1)
        sheet = _sheet(
            panels,
            model,
            [*rows, Space(0.24, height, 0.32)],
            [Space(0.4, width, 0.1)],
            "heads sorted within layers",
            "Dots: heads, the largest at the left of each layer; bars: means over the heads of a "
            "layer. Layers counted from 0.",
        )
        for row, (panel, heads) in enumerate(drawn):
            ax = _panel(sheet, (row, 0), panel, heads)
            _sorted(ax, heads, colour)
            if row == len(drawn) - 1:
                ax.set_xlabel("layer", size=style.SMALL_SIZE, labelpad=1.5)
    return sheet.figure


def _sorted(ax: Axes, heads: Curve, colour: str) -> None:
    depth, count = heads.members.shape
    values = np.take_along_axis(heads.members, ranked(heads.members), axis=1)
    inside = FILLED * ((np.arange(count) + 0.5) / count - 0.5)
    places = np.arange(depth)[:, None] + inside
    size = float(np.clip(0.7 * SORTED_PANEL[0] * 72 * FILLED / (depth * count), 1.0, 3.2))
    for place in range(1, depth, 2):
        ax.axvspan(place - 0.5, place + 0.5, color="#F1F1F1", lw=0, zorder=0)
    half = FILLED / 2
    ends = [[(i - half, mean), (i + half, mean)] for i, mean in enumerate(heads.values)]
    means = LineCollection(ends, colors=style.lighter(colour, 0.4), lw=1.0, label="means")
    ax.add_collection(means, autolim=False)
    through = [np.column_stack(curve) for curve in zip(places, values, strict=True)]
    curves = LineCollection(through, color=colour, lw=0.6, label="curves")
    ax.add_collection(curves, autolim=False)
    dots: dict[str, Any] = {"ls": "none", "marker": "o", "ms": size, "mew": 0, "clip_on": False}
    ax.plot(places.ravel(), values.ravel(), color=colour, label="heads", **dots)
    ax.set_xlim(-0.5, depth - 0.5)
    # A number takes a tenth of an inch: every layer has one.
    ax.set_xticks(range(depth), [str(layer) for layer in heads.layers])
    ax.tick_params(axis="x", length=0)


def sorted_rows(panels: Sequence[Panel], model: Model) -> Iterator[SortedRow]:
    """Return what :func:`sorted_figure` draws, as rows of a table."""
    for panel, heads in drawn_of(panels, model):
        about = panel.dataset, model.id, panel.name, panel.unit
        orders = ranked(heads.members).tolist()
        for layer, order, values, mean in zip(
            heads.layers, orders, heads.members, heads.values, strict=True
        ):
            for rank, head in enumerate(order):
                yield SortedRow(*about, layer, rank, head, float(values[head]))
            yield SortedRow(*about, layer, None, None, float(mean))


def heads_figure(panels: Sequence[Panel], model: Model) -> Figure:
    """Draw all heads of a model as heat maps, layers downwards.

    The colours of a metric span the values of all models, so that figures can be compared.
    """
    drawn = drawn_of(panels, model)
    depth, most = (max(heads.members.shape[axis] for _, heads in drawn) for axis in (0, 1))
    cell = max(min(CELL, WIDE / most), 0.02)
    width, height = max(cell * most, NARROW), max(cell, LEAST) * depth
    models = len({heads.model.id for panel in panels for heads in panel.curves})
    shared = f" of all {models} models" if models > 1 else ""
    whole = all(np.isfinite(heads.members).all() for _, heads in drawn)
    with style.settings():
        names = [max(text_width(line, 7) for line in _lines(panel)) for panel, _ in drawn]
        sheet = _sheet(
            panels,
            model,
            [
                Space(0.04, 0, 0),
                Space(0.54, height, 0.34),
                Space(0.27, height, 0.34),
                Space(0.08, 0.08, 0.2),
            ],
            [Space(0.38, width, max(0.1, name - width + 0.05)) for name in names],
            "attention of every head",
            f"Colours of a metric run from the least to the largest value of any head{shared}.",
            remarks=[] if whole else ["Grey: a head without a value."],
        )
        for row, (kind, text, below) in enumerate(HEAT_ROWS, start=1):
            sheet.heading(row, text)
            for column, (panel, heads) in enumerate(drawn):
                ax = sheet.axes(row, column)
                ax.set_label(f"{panel.name}/{kind}")
                values = heads.members
                if kind == "sorted":
                    values = np.take_along_axis(values, ranked(values), axis=1)
                _heat(ax, values, heads.layers, common_scale(panel))
                ax.set_xlabel(below, size=style.SMALL_SIZE, labelpad=1.5)
                if not column:
                    ax.set_ylabel("layer", size=style.SMALL_SIZE, labelpad=2)
                if row == 1:
                    above(ax, "\n".join(_lines(panel)), 4, size=7)
        for column, (panel, _) in enumerate(drawn):
            low, high = common_scale(panel)
            box = sheet.axes(len(HEAT_ROWS) + 1, column)
            mappable = ScalarMappable(Normalize(low, high), style.VALUE_COLOURS)
            bar = sheet.figure.colorbar(mappable, cax=box, orientation="horizontal")
            bar.set_ticks([low, high], labels=[f"{low:.3g}", f"{high:.3g}"])
            first, last = box.get_xticklabels()
            first.set_horizontalalignment("left")
            last.set_horizontalalignment("right")
    return sheet.figure


def _lines(panel: Panel) -> list[str]:
    """Break a metric's name before its unit."""
    name, _, unit = panel.heading.rpartition(" (")
    return [name, f"({unit}"] if name else [panel.heading]


def _heat(ax: Axes, values: Floats, layers: Sequence[int], scale: tuple[float, float]) -> None:
    ax.imshow(
        values,
        aspect="auto",
        cmap=colormaps[style.VALUE_COLOURS].with_extremes(bad=style.NO_VALUE),
        norm=Normalize(*scale),
    )
    rows = layer_ticks(len(layers) - 1)
    ax.set_yticks(rows, [str(layers[row]) for row in rows])
    ax.set_xticks(layer_ticks(values.shape[1] - 1))
    ax.spines[:].set_visible(False)


def heat_rows(panels: Sequence[Panel], model: Model) -> Iterator[HeatRow]:
    """Return the cells as rows of a table; a head without a value too, as ``nan``."""
    for panel, heads in drawn_of(panels, model):
        about = panel.dataset, model.id, panel.name, panel.unit
        for layer, values, order in zip(
            heads.layers, heads.members, ranked(heads.members), strict=True
        ):
            # Where a head stands in the order is its rank.
            for head, (rank, value) in enumerate(zip(np.argsort(order), values, strict=True)):
                yield HeatRow(*about, layer, head, int(rank), float(value), *common_scale(panel))


def pairs_of(panels: Sequence[Panel], model: Model) -> list[tuple[Drawn, Drawn]]:
    """Return which metrics of a model are drawn against one another."""
    held = {panel.name: (panel, heads) for panel, heads in drawn_of(panels, model)}
    names = [name for name in PAIRED if name in held]
    if len(names) < 2:
        raise AnalysisError(
            f"{model.id} has values of {' and '.join(names) or 'none'} of {', '.join(PAIRED)}: "
            "metrics against one another need two"
        )
    return [(held[a], held[b]) for a, b in combinations(names, 2)]


def pairs_figure(panels: Sequence[Panel], model: Model) -> Figure:
    """Draw metrics of a model against one another, a point for each head, coloured by layer."""
    pairs = pairs_of(panels, model)
    layers = pairs[0][0][1].layers
    columns = min(COLUMNS, len(pairs))
    width, height = PAIR_PANEL
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, LIGHTEST, len(layers))))
    with style.settings():
        spaces = [Space(0.52, width, 0.12)] * (columns - 1)
        sheet = _sheet(
            [panel for panel in panels if panel.name in PAIRED],
            model,
            [Space(0.1, height, 0.38)] * -(-len(pairs) // columns),
            [*spaces, Space(0.52, width, 0.75)],
            "metrics of heads against one another",
            "A point for each head.",
        )
        for index, ((panel_x, across), (panel_y, up)) in enumerate(pairs):
            ax = sheet.axes(*divmod(index, columns))
            ax.set_label(f"{panel_x.name}/{panel_y.name}")
            x, y = across.members.ravel(), up.members.ravel()
            tints = colours(np.repeat(np.arange(len(layers)), across.members.shape[1]))
            ax.scatter(x, y, s=11, c=tints, lw=0.25, edgecolors="white", zorder=3)
            ax.set_xlim(_limits(x))
            ax.set_ylim(_limits(y))
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_xlabel(panel_x.heading, size=style.SMALL_SIZE, labelpad=1.5)
            ax.set_ylabel(panel_y.heading, size=style.SMALL_SIZE)
            ax.yaxis.set_label_coords(-0.42 / width, 0.5)
        left, top = sheet.right_of(0)
        box = sheet.box(left + 0.2, top + 0.15, 0.12, height - 0.15)
        norm = BoundaryNorm(np.arange(len(layers) + 1) - 0.5, len(layers))
        bar = sheet.figure.colorbar(ScalarMappable(norm, colours), cax=box)
        ticks = layer_ticks(len(layers) - 1)
        bar.set_ticks(ticks, labels=[str(layers[tick]) for tick in ticks])
        box.minorticks_off()
        box.set_title("layer", size=style.SMALL_SIZE, loc="left", pad=4)
    return sheet.figure


def _limits(values: Floats) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def pair_rows(panels: Sequence[Panel], model: Model) -> Iterator[PairRow]:
    """Return the points as rows of a table; heads that lack one of the values have none."""
    for (panel_x, heads_x), (panel_y, heads_y) in pairs_of(panels, model):
        names = panel_x.dataset, model.id, panel_x.name, panel_y.name
        for (place, head), x in np.ndenumerate(heads_x.members):
            y = heads_y.members[place, head]
            if np.isfinite(x) and np.isfinite(y):
                yield PairRow(*names, heads_x.layers[place], head, float(x), float(y))
