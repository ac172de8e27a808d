"""Figures of linear CKA between models: all layers with all layers, and last with last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.blocks import SCALE, Frame, Place, absent, colours, frame, page_pitch
from vitfeat.figures.cka_values import TOKEN_NAMES, Similarity
from vitfeat.figures.fallbacks import marked, stand_in_remarks
from vitfeat.figures.fonts import text_width
from vitfeat.figures.matrices import draw_matrix, value_size
from vitfeat.figures.models import Model
from vitfeat.text import plural

GUTTER = 0.03
"""White on each side of a panel, of the panel's size, but at most :data:`MAX_GUTTER` inches."""

MAX_GUTTER = 0.012

SCALE_NAME, NO_VALUE = "linear CKA", "no CKA (nan)"


def all_pairs(
    blocks: Sequence[Similarity], models: Sequence[Model], left_out: Collection[str] = ()
) -> Figure:
    """Heat maps of CKA of all layers of all models with one another.

    A block per dataset (down) and token kind (across); in it a panel per pair of models, of the
    same size whatever the models' depths; in a panel a cell per pair of layers. The first layer
    and the first model are at the lower left, as in the literature on CKA. Colours run from 0 to
    1; values below 0, which unbiased estimates may have, are shown as 0, NaN is grey, and a pair
    that was not computed is hatched. A model whose CLS token something else stands in for has an
    asterisk.

    Parameters
    ----------
    blocks
        What to draw; one estimator.
    models
        Order, labels and colours.
    left_out
        Ids of models without CLS token for which nothing stands in: a remark names them.

    Raises
    ------
    AnalysisError
        Nothing to draw, several estimators, or a model without any value that is not left out.
    """
    _check(blocks, models, left_out)
    stand_ins = {name for one in blocks for name in one.stand_ins}
    remarks = stand_in_remarks(stand_ins, models, left_out)
    models = marked(models, stand_ins)
    pitch = page_pitch(models, len({one.tokens for one in blocks}), 0.3, 1.6)
    size = float(np.clip(pitch * 72 / 6, 4.5, style.SMALL_SIZE))
    last = max(max(numbers) for one in blocks for numbers in one.layers.values())
    with style.settings():
        made = frame(
            *_places(blocks),
            models,
            [one.panel(a.id, b.id) for one in blocks for a in models for b in models],
            title="Linear CKA between all layers",
            note=f"{blocks[0].estimator} estimator; layers counted from 0, the first at the lower "
            "left of each panel",
            remarks=remarks,
            pitch=pitch,
            ticks=text_width(str(last), size) + 0.06,
            scale=SCALE_NAME,
            no_value=NO_VALUE,
        )
        gutter = min(GUTTER, MAX_GUTTER / pitch)
        for ax, one in zip(made.axes, blocks, strict=True):
            for row, a in enumerate(models):
                for column, b in enumerate(models):
                    _panel(ax, one, a, b, row, column, gutter)
            _layer_ticks(made, ax, one.layers, _row_layers(blocks, one), models, size, gutter)
    return made.figure


def last_layer(
    blocks: Sequence[Similarity], models: Sequence[Model], left_out: Collection[str] = ()
) -> Figure:
    """Matrices of CKA between the last layers of all models.

    Laid out as :func:`all_pairs`, a model at the same place; values are written into the cells of
    up to 12 models.

    Parameters
    ----------
    blocks
        What to draw; one estimator.
    models
        Order, labels and colours.
    left_out
        As :func:`all_pairs`.

    Raises
    ------
    AnalysisError
        As :func:`all_pairs`.
    """
    _check(blocks, models, left_out)
    stand_ins = {name for one in blocks for name in one.stand_ins}
    remarks = stand_in_remarks(stand_ins, models, left_out)
    models = marked(models, stand_ins)
    pitch = page_pitch(models, len({one.tokens for one in blocks}), 0.22, 0.9)
    drawn = [[[_last(one, a, b) for b in models] for a in models] for one in blocks]
    with style.settings():
        made = frame(
            *_places(blocks),
            models,
            [value for matrix in drawn for row in matrix for value in row],
            title="Linear CKA between last layers",
            note=f"{blocks[0].estimator} estimator",
            remarks=remarks,
            pitch=pitch,
            ticks=0.0,
            scale=SCALE_NAME,
            no_value=NO_VALUE,
        )
        for ax, matrix in zip(made.axes, drawn, strict=True):
            draw_matrix(ax, matrix, value_size(pitch))
    return made.figure


def _places(blocks: Sequence[Similarity]) -> tuple[list[Place], list[str], list[str]]:
    """Blocks, a row per dataset and a column per token kind."""
    rows = list(dict.fromkeys(one.dataset for one in blocks))
    columns = list(dict.fromkeys(one.tokens for one in blocks))
    columns.sort(key=lambda kind: [*TOKEN_NAMES, kind].index(kind))
    places = [
        Place(
            one.dataset,
            one.tokens,
            TOKEN_NAMES.get(one.tokens, one.tokens),
            f"{one.dataset}, {plural(one.n_images, 'image')}",
        )
        for one in blocks
    ]
    return places, rows, columns


def _check(
    blocks: Sequence[Similarity], models: Sequence[Model], left_out: Collection[str]
) -> None:
    if not blocks or not models:
        raise AnalysisError("no CKA values to draw: compute some tables first")
    estimators = sorted({one.estimator for one in blocks})
    if len(estimators) > 1:
        raise AnalysisError(
            f"CKA by several estimators ({', '.join(estimators)}) cannot share a figure: draw one "
            "figure each"
        )
    present = {name for one in blocks for name in one.layers} | set(left_out)
    absent = [model.id for model in models if model.id not in present]
    if absent:
        raise AnalysisError(
            f"no CKA values of {', '.join(absent)}: compute them, or leave the models out"
        )


def _last(one: Similarity, a: Model, b: Model) -> np.float64 | None:
    panel = one.panel(a.id, b.id)
    return None if panel is None else panel[-1, -1]


def _panel(
    ax: Axes, one: Similarity, a: Model, b: Model, row: int, column: int, gutter: float
) -> None:
    values = one.panel(a.id, b.id)
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


def _row_layers(blocks: Sequence[Similarity], one: Similarity) -> dict[str, tuple[int, ...]]:
    """Layers of the models in a block's row, where one may have values in other blocks alone."""
    found = dict(one.layers)
    for other in blocks:
        if other.dataset == one.dataset:
            found = {**other.layers, **found}
    return found


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
