"""Figure of dendrograms of models: who is most alike, from the CKA of last layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitfeat.analyses.similarity.cka_panels import TOO_FEW, Panels, say_instead
from vitfeat.analyses.similarity.compared import Compared
from vitfeat.analyses.similarity.model_space import Dendrogram, dendrogram
from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.looks import Look, looks, point_handles
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Space

WIDTH, LEAF = 2.1, 0.17
"""Of a panel, and of a leaf's height, in inches."""

BRANCH = "#595959"


class DrawnMerge(NamedTuple):
    """Two branches of a dendrogram; their members by id, with spaces between."""

    dataset: str
    tokens: str
    n_images: int
    members_a: str
    members_b: str
    cka: float


def dendrograms(
    blocks: Sequence[Compared], models: Sequence[Model], left_out: Collection[str] = ()
) -> Figure:
    """Draw a dendrogram for each block of CKA.

    Two branches meet at the mean CKA between the models of the one and those of the other.
    """
    panels = Panels.of(blocks, models, left_out)
    shown = panels.models
    look = looks(shown)
    height = LEAF * max(2, *(len(block.usable(models)) for block in blocks))
    label = max(text_width(model.label, style.SMALL_SIZE) for model in shown)
    notes = max(text_width(block.note, style.SMALL_SIZE) for block in blocks)
    across = max(WIDTH + 0.12 + label, notes)
    drawn = [_dendrogram(block, shown) for block in blocks]
    low = min((m.similarity for made, _ in drawn for m in made.merges), default=0.0)
    with style.settings():
        figure, axes = panels.sheet(
            (height, 0.42),
            Space(0.06, WIDTH, across - WIDTH + 0.24),
            title="Trees of models by the CKA of their last layers",
            note="average linkage: two branches meet at the mean CKA between their models; linear "
            "CKA, debiased",
            legend=point_handles(shown),
        )
        for ax, (made, held) in zip(axes, drawn, strict=True):
            _draw(ax, made, held, look, low)
    return figure


def _dendrogram(block: Compared, models: Sequence[Model]) -> tuple[Dendrogram, list[Model]]:
    held = block.usable(models)
    return (dendrogram(block.matrix(held)) if len(held) > 1 else Dendrogram()), held


def merge_rows(blocks: Sequence[Compared], models: Sequence[Model]) -> Iterator[DrawnMerge]:
    """Return the merges that :func:`dendrograms` draws, as rows of a table."""
    for block in blocks:
        made, held = _dendrogram(block, models)
        for *sides, similarity in made.merges:
            a, b = (" ".join(held[i].id for i in side) for side in sides)
            yield DrawnMerge(block.dataset, block.tokens, block.n_images, a, b, similarity)


def _draw(
    ax: Axes, made: Dendrogram, models: Sequence[Model], look: dict[str, Look], low: float
) -> None:
    ax.spines["left"].set_visible(False)
    ax.set_yticks([])
    ax.set_xlim(min(low, 0.98) - 0.03 * (1 - min(low, 0.98)), 1)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("CKA", size=style.SMALL_SIZE, labelpad=1.5)
    if not made.leaves:
        say_instead(ax, TOO_FEW)
        return
    # From the top down.
    ax.set_ylim(len(made.leaves) - 0.5, -0.5)
    ends: dict[tuple[int, ...], tuple[float, float]] = {
        (leaf,): (1.0, float(place)) for place, leaf in enumerate(made.leaves)
    }
    lines = []
    for left, right, x in made.merges:
        (xa, ya), (xb, yb) = ends[left], ends[right]
        lines.append(np.array([(xa, ya), (x, ya), (x, yb), (xb, yb)]))
        ends[left + right] = x, (ya + yb) / 2
    ax.add_collection(LineCollection(lines, colors=BRANCH, lw=0.9, clip_on=False), autolim=False)
    for place, leaf in enumerate(made.leaves):
        model = models[leaf]
        ax.plot([1], [place], **look[model.id].point(), clip_on=False, zorder=3, label=model.id)
        ax.annotate(
            model.label,
            (1, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            size=style.SMALL_SIZE,
            color=look[model.id].colour,
            annotation_clip=False,
        )
