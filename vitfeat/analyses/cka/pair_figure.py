"""Figure of the CKA of one pair of models in large: every layer numbered, values in the cells."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.blocks import SCALE, colours
from vitfeat.figures.cka_values import TOKEN_NAMES, Similarity
from vitfeat.figures.fallbacks import marked, stand_in_remarks
from vitfeat.figures.fonts import text_width
from vitfeat.figures.labels import panel_size
from vitfeat.figures.matrices import write_value
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space
from vitfeat.text import plural

CELL = 0.34
"""Side of a cell in inches, where there are few layers."""

LARGEST = 5.2
"""Inches that the longer side of the panel may take."""

LEGIBLE = 4.5
"""Points: values are written where their font is no smaller."""

BAR = 0.14


def pair(one: Similarity, a: Model, b: Model) -> Figure:
    """Draw all layers of a (upwards) with all of b (to the right).

    Parameters
    ----------
    one
        What to draw, with the values of the pair.
    a, b
        The models.

    Raises
    ------
    AnalysisError
        The pair is not among the values.
    """
    values = one.panel(a.id, b.id)
    if values is None:
        raise AnalysisError(
            f"no CKA values of {a.id} and {b.id}, only of {', '.join(one.layers)}: give the table "
            "of the pair"
        )
    remarks = stand_in_remarks(one.stand_ins & {a.id, b.id}, (a, b), ())
    if np.isnan(values).any():
        remarks.append("grey: no CKA (nan)")
    a, b = marked((a, b), one.stand_ins)
    side = min(CELL, LARGEST / max(values.shape))
    height, width = (side * count for count in values.shape)
    tick = min(style.SMALL_SIZE, side * 72 * 0.9)
    numbers = max(text_width(str(layer), tick) for layer in one.layers[a.id])
    # The models' names stand beside the panel, and may be longer than it.
    over = max(0.0, text_width(b.label, style.TEXT_SIZE, "bold") - width)
    above = max(0.1, text_width(a.label, style.TEXT_SIZE, "bold") - height)
    with style.settings():
        sheet = Sheet(
            [Space(above, height, 0.42)],
            [Space(0.34 + numbers, width, max(0.68, over))],
            title="Linear CKA between all layers",
            note=f"{one.dataset}, {plural(one.n_images, 'image')}; "
            f"{TOKEN_NAMES.get(one.tokens, one.tokens)}; {one.estimator} estimator; layers "
            "counted from 0",
            remarks=remarks,
        )
        ax = sheet.axes(0)
        ax.set_label(f"{a.id}/{b.id}")
        ax.imshow(values, origin="lower", aspect="auto", cmap=colours(), norm=SCALE)
        ax.spines[:].set_visible(False)
        ax.set_xticks(range(values.shape[1]), map(str, one.layers[b.id]), size=tick)
        ax.set_yticks(range(values.shape[0]), map(str, one.layers[a.id]), size=tick)
        ax.tick_params(length=0, pad=2)
        _name(ax, a, b, (0.26 + numbers) / width, 0.3 / height)
        size = side * 72 / 3.4
        if size >= LEGIBLE:
            for (row, column), value in np.ndenumerate(values):
                write_value(ax, column, row, value, min(size, style.SMALL_SIZE))
        left, top = sheet.right_of(0)
        bar = sheet.box(left + 0.14, top, BAR, height)
        bar.set_label("colour bar")
        sheet.figure.colorbar(ScalarMappable(SCALE, colours()), cax=bar, label="linear CKA")
        bar.tick_params(labelsize=style.SMALL_SIZE, width=0.6, length=2)
    return sheet.figure


def _name(ax: Axes, a: Model, b: Model, left: float, below: float) -> None:
    """Write the models' names beside the axes: in the middle, or from the start on if too long."""
    width, height = panel_size(ax)
    for model, length, up in ((a, height, True), (b, width, False)):
        fits = text_width(model.label, style.TEXT_SIZE, "bold") <= length
        along = 0.5 if fits else 0.0
        start = "center" if fits else "bottom" if up else "left"
        ax.text(
            *((-left, along) if up else (along, -below)),
            model.label,
            transform=ax.transAxes,
            rotation=90 if up else 0,
            ha="left" if up else start,
            va=start if up else "center",
            weight="bold",
            color=style.family_colour(model.family),
        )
