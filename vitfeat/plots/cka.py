"""Figures of linear CKA between models: all layers with all layers, and last with last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitfeat.analysis.tables import PairTable, Row, read_csv
from vitfeat.errors import AnalysisError
from vitfeat.plots import style
from vitfeat.plots.blocks import SCALE, Frame, absent, colours, frame, text_width
from vitfeat.plots.models import Model, models_from
from vitfeat.plots.similarity import Similarity, similarities

MAX_WRITTEN = 12
"""Values are written into the cells for no more models than this."""

GUTTER = 0.03
"""White on each side of a panel, of the panel's size, but at most :data:`MAX_GUTTER` inches."""

MAX_GUTTER = 0.012

MARK = "*"
"""Behind the label of a model whose CLS token something else stands in for."""


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
    remarks = _remarks(blocks, models, left_out)
    models = _marked(blocks, models)
    pitch = float(np.clip(4.0 / len(models), 0.3, 1.6))
    size = float(np.clip(pitch * 72 / 6, 4.5, style.SMALL_SIZE))
    last = max(max(numbers) for one in blocks for numbers in one.layers.values())
    with style.settings():
        made = frame(
            blocks,
            models,
            [one.panel(a.id, b.id) for one in blocks for a in models for b in models],
            title="Linear CKA between all layers",
            note=f"{blocks[0].estimator} estimator; layers counted from 0, the first at the lower "
            "left of each panel",
            remarks=remarks,
            pitch=pitch,
            ticks=text_width(str(last), size) + 0.06,
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
    remarks = _remarks(blocks, models, left_out)
    models = _marked(blocks, models)
    pitch = float(np.clip(4.0 / len(models), 0.22, 0.9))
    count = len(models)
    size = min(style.TEXT_SIZE, pitch * 72 / 4.2)
    drawn = [[[_last(one, a, b) for b in models] for a in models] for one in blocks]
    with style.settings():
        made = frame(
            blocks,
            models,
            [value for matrix in drawn for row in matrix for value in row],
            title="Linear CKA between last layers",
            note=f"{blocks[0].estimator} estimator",
            remarks=remarks,
            pitch=pitch,
            ticks=0.0,
        )
        for ax, matrix in zip(made.axes, drawn, strict=True):
            for row, column in np.ndindex(count, count):
                value = matrix[row][column]
                if value is None:
                    absent(ax, column, row, 0)
                elif count <= MAX_WRITTEN:
                    _write(ax, row, column, value, size)
            values = np.array(matrix, dtype=np.float64)
            ax.imshow(
                values,
                origin="lower",
                extent=(0, count, 0, count),
                aspect="auto",
                cmap=colours(),
                norm=SCALE,
            )
            ax.hlines(range(1, count), 0, count, color="white", lw=0.8)
            ax.vlines(range(1, count), 0, count, color="white", lw=0.8)
    return made.figure


def figures_from_csv(
    tables: Mapping[str, Sequence[PairTable]],
    models: Sequence[Mapping[str, str]],
    out_all: Path,
    out_last: Path,
    *,
    estimator: str | None = None,
) -> None:
    """Read CKA tables and write both figures, PNG and PDF each.

    Parameters
    ----------
    tables
        Of each dataset, the tables of its pairs, of each model with itself too; all token kinds
        may be among them.
    models
        ``id``, ``label`` and ``family`` of each model, in the order of the figures.
    out_all, out_last
        The PNG files of :func:`all_pairs` and :func:`last_layer`.
    estimator
        The one to draw, where tables hold several; the first in the tables if none is named.

    Raises
    ------
    AnalysisError
        A table that cannot be read, an estimator that is in none, models without CLS token alone
        and nothing in its place, or as :func:`all_pairs`.
    """
    known = models_from(models)
    rows: dict[str, list[Row]] = {dataset: [] for dataset in tables}
    left_out = set()
    for dataset, some in tables.items():
        for table in some:
            found = read_csv(table.path)
            rows[dataset] += found
            if not found and table.tokens == "cls" and table.model_a == table.model_b:
                left_out.add(table.model_a)
    held = dict.fromkeys(row.estimator for given in rows.values() for row in given)
    if left_out and not held:
        raise AnalysisError(
            f"no CKA values to draw: no CLS token in {', '.join(sorted(left_out))}; ask for other "
            "tokens in analyses.cka.tokens, or set analyses.cka.without_cls to mean"
        )
    drawn = estimator or next(iter(held), None)
    if held and drawn not in held:
        raise AnalysisError(
            f"no CKA table holds the estimator {drawn!r}, only {', '.join(held)}: draw one of "
            "those, or compute it"
        )
    blocks = [
        block
        for dataset, given in rows.items()
        for block in similarities(dataset, (row for row in given if row.estimator == drawn))
    ]
    style.save(all_pairs(blocks, known, left_out), out_all)
    style.save(last_layer(blocks, known, left_out), out_last)


def _remarks(
    blocks: Sequence[Similarity], models: Sequence[Model], left_out: Collection[str]
) -> list[str]:
    """Say which models have no CLS token, and what that means for them."""
    remarks = []
    if any(one.stand_ins for one in blocks):
        remarks.append(f"{MARK} no CLS token: mean of spatial tokens in its place")
    if without := [model.label for model in models if model.id in left_out]:
        remarks.append(f"no CLS token: {', '.join(without)}")
    return remarks


def _marked(blocks: Sequence[Similarity], models: Sequence[Model]) -> list[Model]:
    marked = {name for one in blocks for name in one.stand_ins}
    return [replace(m, label=f"{m.label}{MARK}") if m.id in marked else m for m in models]


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


def _write(ax: Axes, row: int, column: int, value: np.float64, size: float) -> None:
    """Write a value into its cell, black or white, whichever stands out."""
    red, green, blue, _ = colours()(SCALE(np.ma.masked_invalid([value])))[0]
    dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18
    ax.text(
        column + 0.5,
        row + 0.5,
        "nan" if np.isnan(value) else f"{max(value, 0):.2f}",
        ha="center",
        va="center",
        size=size,
        color="white" if dark else "black",
    )
