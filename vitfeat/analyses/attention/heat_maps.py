"""Heat map of one model's heads: layers by heads for each metric, as they are and sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.breakout import HeadPanel, Heads
from vitfeat.figures.curves import images_text
from vitfeat.figures.fonts import text_width
from vitfeat.figures.lines import layer_ticks
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

Floats = NDArray[np.float64]

CELL, NARROW, WIDE = 0.2, 1.25, 1.4
"""Inches of a cell where there is room, and of a panel at least and at most across."""

LEAST = 0.085
"""Inches of a cell's height at least."""

APART, HEADING, NAME = 0.04, 0.22, 0.32
TICKS_LEFT, TICKS_BELOW = 0.38, 0.34
BAR = 0.08

ROWS = (
    ("numbered", "Heads as numbered in the model", "head"),
    ("sorted", "Heads sorted within each layer, largest first", "rank within the layer"),
)


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


def ranked(values: Floats) -> NDArray[np.int64]:
    """Return the heads of each layer by falling value.

    Parameters
    ----------
    values
        (layer, head); NaN comes last, equal values stay in the heads' order.

    Returns
    -------
    NDArray
        (layer, rank): the head at each rank.
    """
    return np.argsort(-values, axis=1, kind="stable")


def common_scale(panel: HeadPanel) -> tuple[float, float]:
    """Return the least and the largest value over all heads of all models of a metric.

    Raises
    ------
    AnalysisError
        There is none.
    """
    values = np.concatenate([heads.values.ravel() for heads in panel.heads] or [np.empty(0)])
    held = values[np.isfinite(values)]
    if not held.size:
        raise AnalysisError(f"no head has a value of {panel.name} on {panel.dataset}")
    return float(held.min()), float(held.max())


def heads_of(panels: Sequence[HeadPanel], model: Model) -> dict[str, Heads]:
    """Return a model's heads by metric, of those metrics that some of its heads have a value of."""
    return {
        panel.name: heads
        for panel in panels
        for heads in panel.heads
        if heads.model.id == model.id and np.isfinite(heads.values).any()
    }


def lacking(panels: Sequence[HeadPanel], model: Model) -> list[str]:
    """Say which metrics a model does not have."""
    held = heads_of(panels, model)
    names = [panel.title for panel in panels if panel.name not in held and not panel.rare]
    return [f"The model has no values of: {', '.join(names)}."] if names else []


def drawn_of(panels: Sequence[HeadPanel], model: Model) -> list[tuple[HeadPanel, Heads]]:
    """Return what is drawn of a model, panel by panel.

    Raises
    ------
    AnalysisError
        The model has no values.
    """
    held = heads_of(panels, model)
    if not held:
        raise AnalysisError(
            f"no attention metrics of {model.id}: compute its table (vitfeat run attention)"
        )
    return [(panel, held[panel.name]) for panel in panels if panel.name in held]


def note_of(drawn: Sequence[tuple[HeadPanel, Heads]]) -> str:
    """Say what values are averaged over."""
    images = images_text(heads.n_images for _, heads in drawn)
    return f"{drawn[0][0].dataset}, means over {images}"


def heads_figure(panels: Sequence[HeadPanel], model: Model) -> Figure:
    """Draw all heads of a model as heat maps, layers downwards.

    The colours of a metric span the values of all models, so that figures can be compared.

    Parameters
    ----------
    panels
        Metrics of heads, each with all models that share the scale.
    model
        The one to draw.

    Raises
    ------
    AnalysisError
        The model has no values.
    """
    drawn = drawn_of(panels, model)
    depth, most = (max(heads.values.shape[axis] for _, heads in drawn) for axis in (0, 1))
    cell = max(min(CELL, WIDE / most), 0.02)
    width, height = max(cell * most, NARROW), max(cell, LEAST) * depth
    models = len({heads.model.id for panel in panels for heads in panel.heads})
    shared = f" of all {models} models" if models > 1 else ""
    with style.settings():
        names = [max(text_width(line, 7) for line in _lines(panel)) for panel, _ in drawn]
        sheet = Sheet(
            [
                Space(APART, 0, 0),
                Space(HEADING + NAME, height, TICKS_BELOW),
                Space(HEADING + 0.05, height, TICKS_BELOW),
                Space(0.08, BAR, 0.2),
            ],
            [Space(TICKS_LEFT, width, max(0.1, name - width + 0.05)) for name in names],
            title=f"{model.label}: attention of every head",
            note=f"{note_of(drawn)}. Colours of a metric run from the least to the largest value "
            f"of any head{shared}.",
            remarks=_remarks(drawn) + lacking(panels, model),
        )
        for row, (kind, text, below) in enumerate(ROWS, start=1):
            sheet.heading(row, text)
            for column, (panel, heads) in enumerate(drawn):
                ax = sheet.axes(row, column)
                ax.set_label(f"{panel.name}/{kind}")
                values = heads.values
                if kind == "sorted":
                    values = np.take_along_axis(values, ranked(values), axis=1)
                _heat(ax, values, heads.layers, common_scale(panel))
                ax.set_xlabel(below, size=style.SMALL_SIZE, labelpad=1.5)
                if not column:
                    ax.set_ylabel("layer", size=style.SMALL_SIZE, labelpad=2)
                if row == 1:
                    name_above(ax, "\n".join(_lines(panel)))
        for column, (panel, _) in enumerate(drawn):
            _bar(sheet, column, common_scale(panel))
    return sheet.figure


def name_above(ax: Axes, text: str) -> None:
    """Write a metric's name above a panel."""
    ax.annotate(text, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", size=7)


def _lines(panel: HeadPanel) -> list[str]:
    """Break a metric's name before its unit."""
    name, _, unit = panel.heading.rpartition(" (")
    return [name, f"({unit}"] if name else [panel.heading]


def _remarks(drawn: Sequence[tuple[HeadPanel, Heads]]) -> list[str]:
    if all(np.isfinite(heads.values).all() for _, heads in drawn):
        return []
    return ["Grey: a head without a value."]


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


def _bar(sheet: Sheet, column: int, scale: tuple[float, float]) -> None:
    box = sheet.axes(len(ROWS) + 1, column)
    mappable = ScalarMappable(Normalize(*scale), style.VALUE_COLOURS)
    bar = sheet.figure.colorbar(mappable, cax=box, orientation="horizontal")
    low, high = scale
    bar.set_ticks([low, high], labels=[f"{low:.3g}", f"{high:.3g}"])
    first, last = box.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def heat_rows(panels: Sequence[HeadPanel], model: Model) -> Iterator[HeatRow]:
    """Return the cells as rows of a table; a head without a value too, as ``nan``.

    Parameters and errors are those of :func:`heads_figure`.
    """
    for panel, heads in drawn_of(panels, model):
        low, high = common_scale(panel)
        for place, order in enumerate(ranked(heads.values)):
            ranks: Mapping[int, int] = {int(head): rank for rank, head in enumerate(order)}
            for head, value in enumerate(heads.values[place].tolist()):
                yield HeatRow(
                    panel.dataset,
                    model.id,
                    panel.name,
                    panel.unit,
                    heads.layers[place],
                    head,
                    ranks[head],
                    value,
                    low,
                    high,
                )
