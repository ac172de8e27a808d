"""Figures of linear CKA between models: all layers with all layers, last with last, and a pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.blocks import SCALE, Frame, Place, absent, colours, frame, page_pitch
from vitfeat.figures.cka_values import TOKEN_NAMES, Similarity
from vitfeat.figures.fallbacks import with_fallbacks
from vitfeat.figures.fonts import text_width
from vitfeat.figures.labels import panel_size
from vitfeat.figures.matrices import draw_matrix, value_size, write_value
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space
from vitfeat.text import plural

GUTTER = 0.03
"""White on each side of a panel, of the panel's size, but at most :data:`MAX_GUTTER` inches."""

MAX_GUTTER = 0.012

CELL, LARGEST = 0.34, 5.2
"""Inches of a cell of a single pair where there are few layers, and of its panel at most."""

LEGIBLE = 4.5
"""Points: values are written where their font is no smaller."""


@style.settings()
def all_pairs(
    blocks: Sequence[Similarity],
    models: Sequence[Model],
    left_out: Collection[str] = (),
    printed: str = "",
) -> Figure:
    """Heat maps of CKA of all layers of all models with one another, by one estimator.

    A block per dataset (down) and token kind (across); in it a panel per pair of models, of the
    same size whatever the models' depths; in a panel a cell per pair of layers. The first layer
    and the first model are at the lower left, as in the literature on CKA. Colours run from 0 to
    1; values below 0, which unbiased estimates may have, are shown as 0, NaN is grey, and a pair
    that was not computed is hatched. A model whose CLS token something else stands in for has an
    asterisk; a remark names those in `left_out`, for which nothing does.
    """
    shown, remarks = _checked(blocks, models, left_out)
    pitch = page_pitch(shown, len({block.tokens for block in blocks}), 0.3, 1.6)
    size = float(np.clip(pitch * 72 / 6, 4.5, style.SMALL_SIZE))
    last = max(max(numbers) for block in blocks for numbers in block.layers.values())
    made = _frame(
        blocks,
        shown,
        [block.panel(a.id, b.id) for block in blocks for a in models for b in models],
        title="Linear CKA between all layers",
        note=f"{_estimator(blocks[0], printed)}; layers counted from 0, the first at the lower "
        "left of each panel",
        remarks=remarks,
        pitch=pitch,
        ticks=text_width(str(last), size) + 0.06,
    )
    gutter = min(GUTTER, MAX_GUTTER / pitch)
    for ax, block in zip(made.axes, blocks, strict=True):
        for row, column in np.ndindex(len(models), len(models)):
            _panel(ax, block, models[row], models[column], row, column, gutter)
        # In a block's row, models may have values in other blocks alone.
        left = dict(block.layers)
        for other in blocks:
            if other.dataset == block.dataset:
                left = {**other.layers, **left}
        _layer_ticks(made, ax, block.layers, left, models, size, gutter)
    return made.figure


@style.settings()
def last_layer(
    blocks: Sequence[Similarity],
    models: Sequence[Model],
    left_out: Collection[str] = (),
    printed: str = "",
) -> Figure:
    """Matrices of CKA between the last layers of all models.

    Laid out as :func:`all_pairs`, a model at the same place; values are written into the cells of
    up to 12 models.
    """
    shown, remarks = _checked(blocks, models, left_out)
    pitch = page_pitch(shown, len({block.tokens for block in blocks}), 0.22, 0.9)
    drawn = [[[_last(block, a, b) for b in models] for a in models] for block in blocks]
    made = _frame(
        blocks,
        shown,
        [value for matrix in drawn for row in matrix for value in row],
        title="Linear CKA between last layers",
        note=_estimator(blocks[0], printed),
        remarks=remarks,
        pitch=pitch,
        ticks=0.0,
    )
    for ax, matrix in zip(made.axes, drawn, strict=True):
        draw_matrix(ax, matrix, value_size(pitch))
    return made.figure


def _checked(
    blocks: Sequence[Similarity], models: Sequence[Model], left_out: Collection[str]
) -> tuple[list[Model], list[str]]:
    """Return the models as they are shown, with remarks, where there is something to draw."""
    if not blocks or not models:
        raise AnalysisError("no CKA values to draw: compute some tables first")
    estimators = sorted({block.estimator for block in blocks})
    if len(estimators) > 1:
        raise AnalysisError(
            f"CKA by several estimators ({', '.join(estimators)}) cannot share a figure: draw one "
            "figure each"
        )
    present = {name for block in blocks for name in block.layers} | set(left_out)
    if without := [model.id for model in models if model.id not in present]:
        raise AnalysisError(
            f"no CKA values of {', '.join(without)}: compute them, or leave the models out"
        )
    return with_fallbacks(blocks, models, left_out)


def _frame(
    blocks: Sequence[Similarity], models: Sequence[Model], drawn: Collection[Any], **more: Any
) -> Frame:
    """Lay out a row per dataset and a column per token kind."""
    kinds = {block.tokens for block in blocks}
    places = [
        Place(
            block.dataset,
            block.tokens,
            TOKEN_NAMES.get(block.tokens, block.tokens),
            f"{block.dataset}, {plural(block.n_images, 'image')}",
        )
        for block in blocks
    ]
    return frame(
        places,
        list(dict.fromkeys(place.row for place in places)),
        sorted(kinds, key=lambda kind: [*TOKEN_NAMES, kind].index(kind)),
        models,
        drawn,
        scale="linear CKA",
        no_value="no CKA (nan)",
        **more,
    )


def _estimator(block: Similarity, printed: str) -> str:
    return f"{block.estimator} estimator" + (f" ({printed})" if printed else "")


def _last(block: Similarity, a: Model, b: Model) -> np.float64 | None:
    panel = block.panel(a.id, b.id)
    return None if panel is None else panel[-1, -1]


def _panel(
    ax: Axes, block: Similarity, a: Model, b: Model, row: int, column: int, gutter: float
) -> None:
    values = block.panel(a.id, b.id)
    if values is None:
        absent(ax, column, row, gutter)
        return
    image = ax.imshow(
        values,
        origin="lower",
        extent=(column + gutter, column + 1 - gutter, row + gutter, row + 1 - gutter),
        aspect="auto",
        cmap=colours(),
        norm=SCALE,
    )
    image.set_label(f"{a.id}/{b.id}")


def _layer_ticks(
    made: Frame,
    ax: Axes,
    below: Mapping[str, tuple[int, ...]],
    left: Mapping[str, tuple[int, ...]],
    models: Sequence[Model],
    size: float,
    gutter: float,
) -> None:
    """Numbers of the first and the last layer of the models, at the two ends of each panel."""
    away = -0.03 / made.pitch

    def ends(numbers: tuple[int, ...]) -> list[tuple[str, float]]:
        step = (1 - 2 * gutter) / len(numbers)
        places = sorted({0, len(numbers) - 1})
        return [(str(numbers[i]), gutter + step * (i + 0.5)) for i in places]

    for index, model in enumerate(models):
        if ax in made.below and model.id in below:
            for text, cell in ends(below[model.id]):
                at = index + _within(cell, (text_width(text, size) + 0.05) / made.pitch)
                ax.text(at, away, text, ha="center", va="top", size=size)
        if ax in made.left and model.id in left:
            for text, cell in ends(left[model.id]):
                at = index + _within(cell, (size / 72 + 0.02) / made.pitch)
                ax.text(away, at, text, ha="right", va="center", size=size)


def _within(at: float, length: float) -> float:
    """Move the middle of a text along a panel from 0 to 1 so that it does not stick out."""
    return min(max(at, length / 2), 1 - length / 2)


@style.settings()
def pair(block: Similarity, a: Model, b: Model, printed: str = "") -> Figure:
    """Draw all layers of a (upwards) with all of b (to the right), values in the cells."""
    values = block.panel(a.id, b.id)
    if values is None:
        raise AnalysisError(
            f"no CKA values of {a.id} and {b.id}, only of {', '.join(block.layers)}: give the "
            "table of the pair"
        )
    (a, b), remarks = with_fallbacks([block], (a, b))
    if np.isnan(values).any():
        remarks.append("grey: no CKA (nan)")
    side = min(CELL, LARGEST / max(values.shape))
    height, width = (side * count for count in values.shape)
    tick = min(style.SMALL_SIZE, side * 72 * 0.9)
    numbers = max(text_width(str(layer), tick) for layer in block.layers[a.id])
    # The models' names stand beside the panel, and may be longer than it.
    over = max(0.0, text_width(b.label, style.TEXT_SIZE, "bold") - width)
    above = max(0.1, text_width(a.label, style.TEXT_SIZE, "bold") - height)
    sheet = Sheet(
        [Space(above, height, 0.42)],
        [Space(0.34 + numbers, width, max(0.68, over))],
        title="Linear CKA between all layers",
        note=f"{block.dataset}, {plural(block.n_images, 'image')}; "
        f"{TOKEN_NAMES.get(block.tokens, block.tokens)}; {_estimator(block, printed)}; "
        "layers counted from 0",
        remarks=remarks,
    )
    ax = sheet.axes(0)
    ax.set_label(f"{a.id}/{b.id}")
    ax.imshow(values, origin="lower", aspect="auto", cmap=colours(), norm=SCALE)
    ax.spines[:].set_visible(False)
    ax.set_xticks(range(values.shape[1]), map(str, block.layers[b.id]), size=tick)
    ax.set_yticks(range(values.shape[0]), map(str, block.layers[a.id]), size=tick)
    ax.tick_params(length=0, pad=2)
    _name(ax, a, b, (0.26 + numbers) / width, 0.3 / height)
    size = side * 72 / 3.4
    if size >= LEGIBLE:
        for (row, column), value in np.ndenumerate(values):
            write_value(ax, column, row, value, min(size, style.SMALL_SIZE))
    left, top = sheet.right_of(0)
    bar = sheet.box(left + 0.14, top, 0.14, height)
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
