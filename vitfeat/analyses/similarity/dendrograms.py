"""Figure of trees of models: who is most alike, from the CKA of last layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitfeat.analyses.similarity.compared import Compared
from vitfeat.analyses.similarity.model_space import Tree, tree
from vitfeat.figures import style
from vitfeat.figures.blocks import BLOCK_TITLE, head
from vitfeat.figures.cka_values import TOKEN_NAMES
from vitfeat.figures.fallbacks import marked, stand_in_remarks
from vitfeat.figures.fonts import text_width
from vitfeat.figures.looks import Look, looks, point_handles
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

WIDTH, LEAF = 2.1, 0.17
"""Of a panel, and of a leaf's height, in inches."""

BRANCH = "#595959"

TOO_FEW = "fewer than two models have values"


class DrawnMerge(NamedTuple):
    """Two branches of a tree; their members by id, with spaces between."""

    dataset: str
    tokens: str
    n_images: int
    members_a: str
    members_b: str
    cka: float


def grid_of(blocks: Sequence[Compared]) -> tuple[list[str], list[str]]:
    """Return datasets (down) and token kinds (across) of panels, one for each block."""
    datasets = list(dict.fromkeys(one.dataset for one in blocks))
    kinds = sorted({one.tokens for one in blocks}, key=list(TOKEN_NAMES).index)
    return datasets, kinds


def trees(
    blocks: Sequence[Compared], models: Sequence[Model], left_out: Collection[str] = ()
) -> Figure:
    """Draw a tree for each dataset (down) and token kind (across).

    Two branches meet at the mean CKA between the models of the one and those of the other.

    Parameters
    ----------
    blocks
        CKA, at least one block.
    models
        Labels and looks.
    left_out
        As in :func:`vitfeat.analyses.similarity.measure_matrices.measure_matrices`.
    """
    stand_ins = {name for one in blocks for name in one.stand_ins}
    shown = marked(models, stand_ins)
    look = looks(shown)
    datasets, kinds = grid_of(blocks)
    height = LEAF * max(2, *(len(one.usable(models)) for one in blocks))
    label = max(text_width(model.label, style.SMALL_SIZE) for model in shown)
    notes = max(text_width(one.note, style.SMALL_SIZE) for one in blocks)
    across = max(WIDTH + 0.12 + label, notes)
    drawn = {one: _tree(one, shown) for one in blocks}
    low = min((m.similarity for found, _ in drawn.values() for m in found.merges), default=0.0)
    with style.settings():
        sheet = Sheet(
            [Space(BLOCK_TITLE, height, 0.42)] * len(datasets),
            [Space(0.06, WIDTH, across - WIDTH + 0.24)] * len(kinds),
            title="Trees of models by the CKA of their last layers",
            note="average linkage: two branches meet at the mean CKA between their models; linear "
            "CKA, debiased",
            legend=point_handles(shown),
            remarks=stand_in_remarks(stand_ins, models, left_out),
        )
        for one, (found, held) in drawn.items():
            ax = sheet.axes(datasets.index(one.dataset), kinds.index(one.tokens))
            ax.set_label(f"{one.dataset}/{one.tokens}")
            head(ax, TOKEN_NAMES[one.tokens], one.note.partition("; ")[2])
            _draw(ax, found, held, look, low)
    return sheet.figure


def _tree(one: Compared, models: Sequence[Model]) -> tuple[Tree, list[Model]]:
    held = one.usable(models)
    return (tree(one.matrix(held)) if len(held) > 1 else Tree((), ())), held


def merge_rows(blocks: Sequence[Compared], models: Sequence[Model]) -> Iterator[DrawnMerge]:
    """Return the merges that :func:`trees` draws, as rows of a table."""
    for one in blocks:
        found, held = _tree(one, models)
        for merge in found.merges:
            a, b = (" ".join(held[i].id for i in side) for side in (merge.left, merge.right))
            yield DrawnMerge(one.dataset, one.tokens, one.n_images, a, b, merge.similarity)


def _draw(
    ax: Axes, found: Tree, models: Sequence[Model], look: dict[str, Look], low: float
) -> None:
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.set_yticks([])
    ax.set_xlim(min(low, 0.98) - 0.03 * (1 - min(low, 0.98)), 1)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("CKA", size=style.SMALL_SIZE, labelpad=1.5)
    if not found.leaves:
        ax.text(0.5, 0.5, TOO_FEW, transform=ax.transAxes, ha="center", size=style.SMALL_SIZE)
        return
    # From the top down.
    count = len(found.leaves)
    ax.set_ylim(count - 0.5, -0.5)
    ends: dict[tuple[int, ...], tuple[float, float]] = {
        (leaf,): (1.0, float(place)) for place, leaf in enumerate(found.leaves)
    }
    lines = []
    for merge in found.merges:
        (xa, ya), (xb, yb) = ends[merge.left], ends[merge.right]
        x = merge.similarity
        lines.append(np.array([(xa, ya), (x, ya), (x, yb), (xb, yb)]))
        ends[merge.left + merge.right] = x, (ya + yb) / 2
    ax.add_collection(LineCollection(lines, colors=BRANCH, lw=0.9, clip_on=False), autolim=False)
    for place, leaf in enumerate(found.leaves):
        model = models[leaf]
        one = look[model.id]
        ax.plot([1], [place], **one.point(), clip_on=False, zorder=3, label=model.id)
        ax.annotate(
            model.label,
            (1, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            size=style.SMALL_SIZE,
            color=one.colour,
            annotation_clip=False,
        )
