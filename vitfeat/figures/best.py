"""Figures of the best layer of each model: how good it is, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vitfeat.figures import style
from vitfeat.figures.curves import Curve, Panel, best_place, chance_at
from vitfeat.figures.fonts import text_width
from vitfeat.figures.looks import GREY, REFERENCE_LOOK_COLOUR
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space, above

MARKERS: Sequence[tuple[str, bool]] = (("o", True), ("s", False), ("D", True), ("^", False))
"""Marker of each kind of features, and whether it is filled."""

PITCH, DODGE = 0.14, 0.04
"""Inches a model, and more for each kind of features, which stand so far below one another."""

WIDTH, NARROW_WIDTH = 1.7, 1.45
"""Inches of a column: of up to two scores, and of more."""


def best_figure(
    panels: Sequence[Panel],
    models: Sequence[Model],
    kinds: Mapping[str, str],
    *,
    title: str,
    note: str,
    baseline: str,
    remarks: Sequence[str] = (),
) -> Figure:
    """Draw the best layer of every model: a row a model, a column a score, and one for its depth.

    Curves without any value are left out. The depth is that of the first score. `kinds` says what
    kinds of features are called, each of which has a marker; `baseline` what the grey strokes are.
    """
    best = [
        (panel, curve, place)
        for panel in panels
        for curve in panel.curves
        if (place := best_place(curve)) is not None
    ]
    present = {curve.model.id for _, curve, _ in best}
    drawn = [model for model in models if model.id in present]
    marks = dict(zip(kinds, MARKERS, strict=False))
    pitch = PITCH + DODGE * len(kinds)
    below = {kind: (at - (len(kinds) - 1) / 2) * DODGE / pitch for at, kind in enumerate(kinds)}
    legend: list[Artist] = [_handle(kinds[kind], *marks[kind]) for kind in kinds]
    if any(np.isfinite(chance_at(*one)) for one in best):
        legend.append(_stroke(baseline))
    left = max((text_width(model.label, style.SMALL_SIZE) for model in drawn), default=0) + 0.1
    height = pitch * max(len(drawn), 1)
    scores = {panel.key: panel.measure for panel in panels}
    width = WIDTH if len(scores) < 3 else NARROW_WIDTH
    first = next(iter(scores))
    with style.settings():
        sheet = Sheet(
            [Space(0.2, height, 0.2)],
            [Space(left, width, 0.2)] + [Space(0, width, 0.2)] * len(scores),
            title=title,
            note=note,
            legend=legend,
            remarks=remarks,
        )
        for column, name in enumerate([*scores, "depth"]):
            ax = sheet.axes(0, column)
            ax.set_label(name)
            of = first if name == "depth" else name
            heading = f"Depth of the best {scores[of]}" if name == "depth" else scores[of]
            _prepare(ax, drawn, heading, named=column == 0)
            for panel, curve, place in best:
                if panel.key == of:
                    row = drawn.index(curve.model) + below[panel.kind]
                    _draw(ax, panel, curve, place, row, marks[panel.kind], depth=name == "depth")
            if name == "depth":
                ax.set_xlim(-0.04, 1.04)
                ax.set_xticks([0, 0.5, 1])
    return sheet.figure


def _prepare(ax: Axes, models: Sequence[Model], heading: str, *, named: bool) -> None:
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_yticks(range(len(models)), [model.label for model in models] if named else [])
    for label, model in zip(ax.get_yticklabels(), models, strict=False):
        label.set_color(style.family_colour(model.family))
    ax.tick_params(axis="y", length=0)
    ax.hlines(range(len(models)), 0, 1, transform=ax.get_yaxis_transform(), color="#E4E4E4", lw=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    above(ax, heading, 4, size=7)


def _draw(
    ax: Axes,
    panel: Panel,
    curve: Curve,
    at: int,
    row: float,
    mark: tuple[str, bool],
    *,
    depth: bool,
) -> None:
    colour = style.family_colour(curve.model.family)
    x = curve.depth[at] if depth else curve.values[at]
    if not depth:
        ax.plot([curve.low[at], curve.high[at]], [row, row], color=colour, lw=1.0)
        if np.isfinite(chance := chance_at(panel, curve, at)):
            ax.plot([chance], [row], color=REFERENCE_LOOK_COLOUR, marker="|", ms=4, mew=0.8)
    marker, filled = mark
    ax.plot(
        [x],
        [row],
        ls="none",
        marker=marker,
        ms=3.8,
        mew=0.8,
        mec=colour,
        mfc=colour if filled else "white",
        label=f"{curve.model.id}/{panel.kind}",
        zorder=3,
    )


def _handle(name: str, marker: str, filled: bool) -> Line2D:
    face = GREY if filled else "white"
    return Line2D([], [], ls="none", marker=marker, ms=4, mec=GREY, mfc=face, label=name)


def _stroke(name: str) -> Line2D:
    return Line2D([], [], ls="none", marker="|", ms=4, mec=REFERENCE_LOOK_COLOUR, label=name)
