"""Figures of metrics by layer: a panel a metric, a line a model, networks of one size together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.curves import Curve, Panel, shown
from vitfeat.figures.fonts import text_width
from vitfeat.figures.labels import LEADER, LINE_GAP, End, end_labels
from vitfeat.figures.looks import (
    Look,
    group_title,
    looks,
    reference_look,
    size_groups,
    size_handles,
)
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import EDGE, HEADING_GAP, Sheet, Space, above

MAX_LABELLED = 9
"""No more lines than this have bands, and labels beside them: more have a legend."""

NARROWEST, WIDEST = 1.25, 2.1
"""Of panels, in inches."""

HEIGHT, HEIGHT_OF_MANY = 1.2, 0.9
"""Of panels, in inches: where each metric has one, and where it has a row of them."""

TICKS_LEFT, TICKS_BELOW, NAME_BELOW, NAME_ABOVE = 0.38, 0.17, 0.14, 0.2

MARKED = 12
"""Markers on a line: with more, nothing could be seen of its style."""

BAND = 0.13
"""Opacity of bands."""


@dataclass(frozen=True)
class Section:
    """Panels that stand together below a heading, which may be empty, so many in a row.

    Those of a row have a common scale where that is said.
    """

    heading: str
    panels: Sequence[Panel]
    columns: int
    common: bool = False

    def limits(self, bands: bool) -> list[tuple[float, float]]:
        """Return the limits of each panel's vertical axis."""
        own = [y_limits(panel, bands) for panel in self.panels]
        if not self.common:
            return own
        rows = [own[at : at + self.columns] for at in range(0, len(own), self.columns)]
        return [
            (min(low for low, _ in row), max(high for _, high in row)) for row in rows for _ in row
        ]


@dataclass(frozen=True)
class _Place:
    row: int
    column: int
    panel: Panel
    models: Sequence[Model]
    limits: tuple[float, float]
    name: str
    last: int


def by_layer(
    sections: Sequence[Section],
    models: Sequence[Model],
    *,
    title: str,
    note: str,
    band: str = "",
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw metrics by layer.

    Models of one size share panels, a section's in rows. Models of several sizes
    have a column for each size instead, and a row for each metric on a common scale. Up to
    :data:`MAX_LABELLED` lines have their names beside them and bands around them, of which `band`
    says what they are; more have a legend below.
    """
    panels = [panel for section in sections for panel in section.panels]
    drawn = shown(models, panels)
    if not drawn:
        raise AnalysisError("no values to draw: the models' tables hold none")
    look = looks(models)
    curves = [curve for panel in panels for curve in panel.curves]
    sections = [replace(s, columns=style.side_by_side(s.columns)) for s in sections]
    groups = size_groups(drawn, {curve.model.id: len(curve.layers) for curve in curves})
    direct = max(map(len, groups)) <= MAX_LABELLED
    note = f"{note} {band}" if direct and band else note
    with style.settings():
        places, rows, columns, headings = _plan(sections, groups, direct)
        sheet = Sheet(
            rows,
            columns,
            title=title,
            note=note,
            legend=[*(() if direct else _legend(drawn, look, panels)), *size_handles(drawn)],
            remarks=remarks,
        )
        for row, heading in headings.items():
            sheet.heading(row, heading)
        lowest = {place.column: place.row for place in places}
        for place in places:
            ax = sheet.axes(place.row, place.column)
            _draw(ax, place, look, direct)
            if lowest[place.column] == place.row:
                ax.set_xlabel("layer", size=style.SMALL_SIZE, labelpad=1.5)
            if len(groups) > 1 and place.row == 0:
                sizes = group_title(place.models)
                above(ax, sizes, 4 + 72 * NAME_ABOVE, size=style.TEXT_SIZE, weight="bold")
    return sheet.figure


def _plan(
    sections: Sequence[Section], groups: Sequence[Sequence[Model]], direct: bool
) -> tuple[list[_Place], list[Space], list[Space], dict[int, str]]:
    """Lay panels out; say how much room rows and columns take, and which rows have headings."""
    places: list[_Place] = []
    headings: dict[int, str] = {}
    row = 0
    for section in sections:
        if section.heading:
            headings[row] = section.heading
        if len(groups) > 1:
            for panel, limits in zip(section.panels, section.limits(direct), strict=True):
                for column, group in enumerate(groups):
                    name = "" if column else panel.heading
                    last = _last(section.panels, group)
                    places.append(_Place(row, column, panel, group, limits, name, last))
                row += 1
            continue
        limits_of = section.limits(direct)
        for index, panel in enumerate(section.panels):
            at, column = row + index // section.columns, index % section.columns
            (group,) = groups
            limits, last = limits_of[index], _last(section.panels, group)
            places.append(_Place(at, column, panel, group, limits, panel.heading, last))
        row += -(-len(section.panels) // section.columns)
    count = 1 + max(place.column for place in places)
    named = [model.label for group in groups for model in group]
    named += [place.panel.baseline for place in places if place.panel.baselines]
    behind = LEADER + 0.06 + max(text_width(n, style.SMALL_SIZE) for n in named) if direct else 0.12
    width = (style.PAGE_WIDTH - 2 * EDGE) / count - TICKS_LEFT - behind
    width = min(max(width, NARROWEST), WIDEST)
    lines = max(map(len, groups)) + any(place.panel.baselines for place in places)
    height = HEIGHT if len(groups) < 2 else HEIGHT_OF_MANY
    height = max(height, lines * LINE_GAP * style.SMALL_SIZE / 72) if direct else height
    lowest = {place.column: place.row for place in places}
    rows = []
    for at in range(row):
        above = NAME_ABOVE * (1 + (at in headings) + (at == 0 and len(groups) > 1))
        above += HEADING_GAP if at in headings and at else 0
        below = TICKS_BELOW + (NAME_BELOW if at in lowest.values() else 0)
        rows.append(Space(above, height, below))
    names = [max(text_width(p.name, 7) for p in places if p.column == c) for c in range(count)]
    # A name may be wider than its panel and the room beside it.
    columns = [Space(TICKS_LEFT, width, max(behind, name - width + 0.1)) for name in names]
    return places, rows, columns, headings


def _last(panels: Iterable[Panel], models: Sequence[Model]) -> int:
    ids = {model.id for model in models}
    return max(
        (curve.layers[-1] for panel in panels for curve in panel.curves if curve.model.id in ids),
        default=1,
    )


def _draw(ax: Axes, place: _Place, look: dict[str, Look], direct: bool) -> None:
    panel = place.panel
    ids = [model.id for model in place.models]
    curves = [curve for curve in panel.curves if curve.model.id in ids]
    baselines = [curve for curve in panel.baselines if curve.model.id in ids]
    ax.set_label(f"{panel.dataset}/{panel.name}/{group_title(place.models)}")
    set_scale(ax, panel, place.limits)
    last = max(place.last, 1)
    ax.set_xlim(-0.03 * last, 1.03 * last)
    ax.set_xticks(layer_ticks(place.last))
    ax.spines[["top", "right"]].set_visible(False)
    for curve in curves:
        if panel.floor and curve.model.family in style.UNTRAINED_FAMILIES:
            ax.fill_between(curve.layers, place.limits[0], curve.values, color="#F1F1F1", lw=0)
    ends = []
    grey = reference_look()
    for curve in baselines:
        ax.plot(curve.layers, curve.values, **grey.drawn(0.8), label="baseline", zorder=2)
    if baselines:
        level = float(np.nanmean([curve.values[-1] for curve in baselines]))
        ends.append(End(baselines[0].layers[-1], level, panel.baseline, grey.colour))
    for curve in sorted(curves, key=lambda c: c.model.family not in style.UNTRAINED_FAMILIES):
        one = look[curve.model.id]
        ax.plot(
            curve.layers,
            curve.values,
            **one.drawn(),
            markevery=-(-len(curve.layers) // MARKED),
            label=curve.model.id,
            zorder=3,
        )
        if direct:
            banded = curve.high > curve.low
            if banded.any():
                low = np.maximum(curve.low, place.limits[0])
                ax.fill_between(curve.layers, low, curve.high, color=one.colour, alpha=BAND, lw=0)
            ends.append(_end(curve, one))
    if direct:
        end_labels(ax, ends)
    if place.name:
        above(ax, place.name, 4, size=7)
    if not curves:
        ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", size=style.SMALL_SIZE)


def _end(curve: Curve, look: Look) -> End:
    held = np.flatnonzero(np.isfinite(curve.values))
    at = held[-1] if held.size else -1
    return End(curve.layers[at], float(curve.values[at]), curve.model.label, look.colour)


def _legend(
    models: Sequence[Model], look: dict[str, Look], panels: Sequence[Panel]
) -> list[Artist]:
    handles: list[Artist] = [look[model.id].handle(model.label) for model in models]
    names = dict.fromkeys(panel.baseline for panel in panels if panel.baselines)
    return handles + [reference_look().handle(name) for name in names]


def y_limits(panel: Panel, bands: bool) -> tuple[float, float]:
    """Return limits that hold all curves, and their bands where they are drawn.

    They start at 0 where values come near it, and leave a twentieth above and below otherwise.
    """
    parts = [curve.values for curve in (*panel.curves, *panel.baselines)]
    if bands:
        # Towards 0 a logarithmic axis would be mostly band.
        parts += [c.high for c in panel.curves] + [c.low for c in panel.curves if not panel.log]
    values = np.concatenate(parts) if parts else np.empty(0)
    values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
    if not values.size:
        return (0.1, 10) if panel.log else (0, 1)
    low, high = float(values.min()), float(values.max())
    if panel.log:
        margin = max((high / low) ** 0.06, 1.1)
        return low / margin, high * margin
    if low == high:
        return (0, 2 * high or 1) if low >= 0 else (2 * low, 0)
    margin = 0.05 * (high - low)
    return (0 if 0 <= low < 0.35 * high else low - margin), high + margin


def set_scale(ax: Axes, panel: Panel, limits: tuple[float, float]) -> None:
    """Set a panel's vertical axis: few ticks, plain numbers on a logarithmic one too."""
    if panel.log:
        ax.set_yscale("log")
        decades = np.log10(limits[1] / limits[0])
        subs = (1, 2, 5) if decades < 1.7 else (1, 3) if decades < 2.5 else (1,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_ylim(limits)


def layer_ticks(last: int) -> list[int]:
    """Return up to six layers' numbers, evenly spaced from 0."""
    step = next(s for s in (1, 2, 3, 4, 5, 6, 8, 10, 20, 50, 100, last + 1) if last // s <= 5)
    return list(range(0, last + 1, step))
