"""Figures of the best layer of each model: how good it is, and where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vitfeat.figures import style
from vitfeat.figures.curves import Curve, Panel
from vitfeat.figures.fonts import text_width
from vitfeat.figures.looks import GREY, REFERENCE_LOOK_COLOUR
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

MARKERS: Sequence[tuple[str, bool]] = (("o", True), ("s", False), ("D", True), ("^", False))
"""Marker of each kind of features, and whether it is filled."""

PITCH, DODGE = 0.14, 0.04
"""Inches a model, and more for each kind of features, which stand so far below one another."""

WIDTH = 1.7


@dataclass(frozen=True, eq=False)
class Best:
    """The layer of a model with the greatest value of a metric.

    Attributes
    ----------
    panel
        The metric.
    kind, score
        Two parts of its name: what a marker stands for, and what a column.
    curve, place
        The model's curve, and where the layer stands in it.
    baseline
        The baseline's value of that layer; NaN without one.
    """

    panel: Panel
    kind: str
    score: str
    curve: Curve
    place: int
    baseline: float

    @property
    def layer(self) -> int:
        """Number of the layer."""
        return self.curve.layers[self.place]


class BestRow(NamedTuple):
    """The best layer of a model; `low` and `high` are over seeds."""

    dataset: str
    features: str
    score: str
    model: str
    layer: int
    depth: float
    n_images: int
    value: float
    low: float
    high: float
    baseline: float


def best_layers(panels: Iterable[Panel]) -> list[Best]:
    """Find the best layer of every curve, the first of equal ones.

    Parameters
    ----------
    panels
        Their names are ``score/kind``. Curves without any value are left out.
    """
    found = []
    for panel in panels:
        score, _, kind = panel.name.partition("/")
        baselines = {
            (curve.model.id, layer): value
            for curve in panel.baselines
            for layer, value in zip(curve.layers, curve.values, strict=True)
        }
        for curve in panel.curves:
            if np.isfinite(curve.values).any():
                place = int(np.nanargmax(curve.values))
                at = curve.model.id, curve.layers[place]
                baseline = float(baselines.get(at, np.nan))
                found.append(Best(panel, kind, score, curve, place, baseline))
    return found


def best_rows(best: Iterable[Best]) -> Iterator[BestRow]:
    """Return what is drawn, as rows of a table."""
    for one in best:
        curve, at = one.curve, one.place
        values = (curve.values[at], curve.low[at], curve.high[at])
        value, low, high = map(float, values)
        yield BestRow(
            one.panel.dataset,
            one.kind,
            one.score,
            curve.model.id,
            one.layer,
            float(curve.depth[at]),
            curve.n_images,
            value,
            low,
            high,
            one.baseline,
        )


def best_figure(
    best: Sequence[Best],
    models: Sequence[Model],
    scores: Mapping[str, str],
    kinds: Mapping[str, str],
    *,
    title: str,
    note: str,
    baseline: str,
    remarks: Sequence[str] = (),
    width: float = WIDTH,
) -> Figure:
    """Draw the best layer of every model: a row a model, a column a score, and one for its depth.

    Parameters
    ----------
    best
        From :func:`best_layers`.
    models
        Those with a best layer are drawn, from the top down.
    scores, kinds
        By key, what scores and features are called. The depth is that of the first score.
    title, note, remarks
        Around the figure.
    baseline
        What the grey strokes are called.
    width
        Of a column, in inches.
    """
    present = {one.curve.model.id for one in best}
    drawn = [model for model in models if model.id in present]
    marks = dict(zip(kinds, MARKERS, strict=False))
    pitch = PITCH + DODGE * len(kinds)
    below = {kind: (at - (len(kinds) - 1) / 2) * DODGE / pitch for at, kind in enumerate(kinds)}
    legend: list[Artist] = [_handle(kinds[kind], *marks[kind]) for kind in kinds]
    if any(np.isfinite(one.baseline) for one in best):
        legend.append(_stroke(baseline))
    left = max((text_width(model.label, style.SMALL_SIZE) for model in drawn), default=0) + 0.1
    height = pitch * max(len(drawn), 1)
    columns = [Space(left, width, 0.2)] + [Space(0, width, 0.2)] * len(scores)
    first = next(iter(scores))
    with style.settings():
        sheet = Sheet(
            [Space(0.2, height, 0.2)],
            columns,
            title=title,
            note=note,
            legend=legend,
            remarks=remarks,
        )
        for column, name in enumerate([*scores, "depth"]):
            ax = sheet.axes(0, column)
            ax.set_label(name)
            of = first if name == "depth" else name
            here = [one for one in best if one.score == of]
            heading = f"Depth of the best {scores[of]}" if name == "depth" else scores[of]
            _prepare(ax, drawn, heading, named=column == 0)
            for one in here:
                row = drawn.index(one.curve.model) + below[one.kind]
                _draw(ax, one, row, marks[one.kind], depth=name == "depth")
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
    ax.annotate(
        heading, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", size=7
    )


def _draw(ax: Axes, one: Best, row: float, mark: tuple[str, bool], *, depth: bool) -> None:
    colour = style.family_colour(one.curve.model.family)
    at = one.place
    x = one.curve.depth[at] if depth else one.curve.values[at]
    if not depth:
        ax.plot([one.curve.low[at], one.curve.high[at]], [row, row], color=colour, lw=1.0)
        if np.isfinite(one.baseline):
            ax.plot([one.baseline], [row], color=REFERENCE_LOOK_COLOUR, marker="|", ms=4, mew=0.8)
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
        label=f"{one.curve.model.id}/{one.kind}",
        zorder=3,
    )


def _handle(name: str, marker: str, filled: bool) -> Line2D:
    face = GREY if filled else "white"
    return Line2D([], [], ls="none", marker=marker, ms=4, mec=GREY, mfc=face, label=name)


def _stroke(name: str) -> Line2D:
    return Line2D([], [], ls="none", marker="|", ms=4, mec=REFERENCE_LOOK_COLOUR, label=name)
