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
from vitfeat.figures.fallbacks import with_fallbacks
from vitfeat.figures.matrices import draw_matrix, value_size
from vitfeat.figures.models import Model
from vitfeat.text import plural

ACROSS = 3
"""Measures side by side; two where blocks of many models are too wide."""


@style.settings()
def measure_matrices(
    blocks: Sequence[Compared], models: Sequence[Model], left_out: Collection[str] = ()
) -> Figure:
    """Draw the similarity of the last layers of all models by every measure.

    A block per measure, dataset and token kind, all on one scale from 0 to 1. Values below 0 are
    shown as 0, NaN is grey, and a pair that was not computed is hatched. Models stand from left to
    right and from the bottom up; a remark names those in `left_out`, which have no CLS token and
    nothing in its place.
    """
    if not blocks or not models:
        raise AnalysisError("no similarities to draw: compute some tables first")
    shown, remarks = with_fallbacks(blocks, models, left_out)
    chance = {
        f"{block.setting / (block.n_images - 1):.3f} ({block.dataset})": None
        for block in blocks
        if block.measure == "mutual_knn" and block.setting is not None
    }
    if chance:
        remarks.insert(0, f"mutual k-NN of unrelated features: {', '.join(chance)}")
    drawn = [[[block.value(a.id, b.id) for b in models] for a in models] for block in blocks]
    values = [[value for row in matrix for value in row] for matrix in drawn]
    nan = [any(v is not None and np.isnan(v) for v in some) for some in values]
    why = {_no_value(block): None for block, lacks in zip(blocks, nan, strict=True) if lacks}
    names = [name for name in NAMES if any(block.measure == name for block in blocks)]
    for across in (ACROSS, 2):
        pitch = page_pitch(shown, min(across, len(names)), 0.13, 0.5)
        if pitch * len(models) * across < style.PAGE_WIDTH:
            break
    places = [_place(block, names.index(block.measure), across) for block in blocks]
    made = frame(
        places,
        list(dict.fromkeys(place.row for place in places)),
        sorted({place.column for place in places}),
        shown,
        [value for some in values for value in some],
        title="Similarity of last layers by several measures",
        note="CKA: linear, debiased; Procrustes: orthogonal; RSA: Spearman's correlation of "
        "Euclidean distances; mutual k-NN: shared neighbours by cosine; SVCCA: mean canonical "
        "correlation",
        remarks=[*remarks, *why],
        pitch=pitch,
        ticks=0.0,
        scale="similarity",
    )
    for ax, matrix in zip(made.axes, drawn, strict=True):
        draw_matrix(ax, matrix, value_size(pitch))
    return made.figure


def _place(block: Compared, number: int, across: int) -> Place:
    """Place a measure, by its number, below the first ones where they fill a line."""
    source = f"{block.dataset}/{block.tokens}"
    line, column = divmod(number, across)
    name = f"{source}/{block.measure}"
    return Place(f"{source}/{line}", str(column), block.title, block.note, name)


def _no_value(block: Compared) -> str:
    """Say why a measure may have no value for some pairs."""
    if block.measure != "svcca":
        return f"{block.title}: no value (nan) where features do not tell images apart"
    return (
        f"{block.title}: no value (nan) where two layers together have that variance in more "
        f"directions than {plural(block.n_images, 'image')} can tell apart (or features that tell "
        "none apart): take more images or a smaller analyses.similarity.variance"
    )
