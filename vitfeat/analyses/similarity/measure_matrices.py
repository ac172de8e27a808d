"""Figure of all measures of similarity: a matrix of models by models for each."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.similarity.compared import Compared
from vitfeat.analyses.similarity.measures import NAMES
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.blocks import Place, frame, page_pitch
from vitfeat.figures.fallbacks import marked, stand_in_remarks
from vitfeat.figures.matrices import draw_matrix, value_size
from vitfeat.figures.models import Model
from vitfeat.text import plural

ACROSS = 3
"""Measures side by side; two where blocks of many models are too wide."""


def measure_matrices(
    blocks: Sequence[Compared], models: Sequence[Model], left_out: Collection[str] = ()
) -> Figure:
    """Draw the similarity of the last layers of all models by every measure.

    A block per measure, dataset and token kind, all on one scale from 0 to 1.
    Values below 0 are shown as 0, NaN is grey, and a pair that was not computed is hatched.

    Parameters
    ----------
    blocks
        What to draw.
    models
        Order, labels and colours: from left to right and from the bottom up.
    left_out
        Ids of models without CLS token for which nothing stands in: a remark names them.

    Raises
    ------
    AnalysisError
        Nothing to draw.
    """
    if not blocks or not models:
        raise AnalysisError("no similarities to draw: compute some tables first")
    stand_ins = {name for one in blocks for name in one.stand_ins}
    remarks = stand_in_remarks(stand_ins, models, left_out)
    chance = {
        f"{one.setting / (one.n_images - 1):.3f} ({one.dataset})": None
        for one in blocks
        if one.measure == "mutual_knn" and one.setting is not None
    }
    if chance:
        remarks.insert(0, f"mutual k-NN of unrelated features: {', '.join(chance)}")
    remarks += _no_values(blocks, models)
    shown = marked(models, stand_ins)
    names = [name for name in NAMES if any(one.measure == name for one in blocks)]
    for across in (ACROSS, 2):
        pitch = page_pitch(shown, min(across, len(names)), 0.13, 0.5)
        if pitch * len(models) * across < style.PAGE_WIDTH:
            break
    places = [_place(one, names.index(one.measure), across) for one in blocks]
    drawn = [[[one.value(a.id, b.id) for b in models] for a in models] for one in blocks]
    with style.settings():
        made = frame(
            places,
            list(dict.fromkeys(place.row for place in places)),
            sorted({place.column for place in places}),
            shown,
            [value for one in blocks for value in _values(one, models)],
            title="Similarity of last layers by several measures",
            note="CKA: linear, debiased; Procrustes: orthogonal; RSA: Spearman's correlation of "
            "Euclidean distances; mutual k-NN: shared neighbours by cosine; SVCCA: mean canonical "
            "correlation",
            remarks=remarks,
            pitch=pitch,
            ticks=0.0,
            scale="similarity",
        )
        for ax, matrix in zip(made.axes, drawn, strict=True):
            draw_matrix(ax, matrix, value_size(pitch))
    return made.figure


def _place(one: Compared, number: int, across: int) -> Place:
    """Place a measure, by its number, below the first ones where they fill a line."""
    source = f"{one.dataset}/{one.tokens}"
    line, column = divmod(number, across)
    name = f"{source}/{one.measure}"
    return Place(f"{source}/{line}", str(column), one.title, one.note, name)


def _no_values(blocks: Sequence[Compared], models: Sequence[Model]) -> list[str]:
    """Say why measures have no value for some pairs, where that is so."""
    found: dict[str, None] = {}
    for one in blocks:
        if not np.isnan([v for v in _values(one, models) if v is not None]).any():
            continue
        if one.measure == "svcca":
            found[
                f"{one.title}: no value (nan) where two layers together have that variance in more "
                f"directions than {plural(one.n_images, 'image')} can tell apart (or features that "
                "tell none apart): take more images or a smaller analyses.similarity.variance"
            ] = None
        else:
            found[f"{one.title}: no value (nan) where features do not tell images apart"] = None
    return list(found)


def _values(one: Compared, models: Sequence[Model]) -> list[np.float64 | None]:
    return [one.value(a.id, b.id) for a in models for b in models]
