"""Figure of the CKA of skip inputs and branches: a matrix for each model, branch and token kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from vitfeat.analyses.residual.across import BRANCHES
from vitfeat.analyses.rows import ResidualCkaRow
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.blocks import ABSENT, SCALE, colours
from vitfeat.figures.cka_values import TOKEN_NAMES
from vitfeat.figures.curves import images_text
from vitfeat.figures.models import Model
from vitfeat.figures.strips import Cell, Strips, Track

MOST = 13
"""Models side by side."""

Matrices = dict[tuple[str, str, str], NDArray[np.float64]]
"""CKA as (skip i, branch j), by branch, tokens and model."""


def matrices(rows: Iterable[ResidualCkaRow]) -> Matrices:
    """Put the CKA of one dataset together."""
    found: defaultdict[tuple[str, str, str], dict[tuple[int, int], float]] = defaultdict(dict)
    for row in rows:
        found[row.branch, row.tokens, row.model][row.layer_skip, row.layer_branch] = row.cka
    made: Matrices = {}
    for key, cells in found.items():
        layers = block_numbers(cells)
        wanted = [(i, j) for i in layers for j in layers]
        if set(wanted) != set(cells):
            branch, tokens, model = key
            raise AnalysisError(
                f"CKA of skip and branch of {model} ({branch}, {tokens}) has {len(cells)} values "
                f"for {len(layers)} blocks: compute its table again"
            )
        made[key] = np.array([cells[cell] for cell in wanted]).reshape(len(layers), -1)
    return made


def block_numbers(cells: Iterable[tuple[int, int]]) -> list[int]:
    """Return the numbers of the blocks in pairs of them, ascending."""
    return sorted({layer for pair in cells for layer in pair})


def cka_figure(dataset: str, rows: Sequence[ResidualCkaRow], models: Sequence[Model]) -> Figure:
    """Draw the CKA of skip i against branch j, a panel for each model, branch and token kind.

    All on one scale from 0 to 1; values below 0, which the debiased estimate may have, are shown
    as 0, NaN is grey, and what a model does not have is hatched.
    """
    made = matrices(rows)
    images = images_text(row.n_images for row in rows)
    drawn = [model for model in models if any(key[2] == model.id for key in made)]
    tracks = [
        (branch, tokens)
        for branch in BRANCHES
        for tokens in TOKEN_NAMES
        if any(key[:2] == (branch, tokens) for key in made)
    ]
    blocks = {model.id: _blocks(rows, model) for model in drawn}
    legend: list[Artist] = []
    if any(np.isnan(matrix).any() for matrix in made.values()):
        why = "no CKA (nan): a side is the same for all images"
        legend.append(Patch(facecolor=style.NO_VALUE, label=why))
    if len(made) < len(drawn) * len(tracks):
        legend.append(Patch(**ABSENT, label="no such tokens"))
    without = [model.label for model in models if model not in drawn]
    with style.settings():
        side = min(1.0, max(0.58, 6.6 / max(len(drawn), 1)))
        strips = Strips(
            [
                Cell(model.label, style.family_colour(model.family), blocks[model.id])
                for model in drawn
            ],
            [
                Track(f"{branch}/{tokens}", f"{BRANCHES[branch]}, {TOKEN_NAMES[tokens]}", (0, 1))
                for branch, tokens in tracks
            ],
            most=MOST,
            size=(side, side),
            ticks=0.06,
            behind=0.6,
            inset=0,
            across="block",
            title="Linear CKA of skip input and branch",
            note=f"{dataset}, {images}; debiased estimator. Upwards: block of the skip input; to "
            "the right: block of the branch. Numbers: first and last block.",
            legend=legend,
            remarks=[f"No values of {', '.join(without)}."] if without else [],
        )
        for row, (branch, tokens) in enumerate(tracks):
            for ax in strips.rows(row):
                ax.set_yticks([])
            for cell, model in enumerate(drawn):
                _matrix(strips, row, cell, made.get((branch, tokens, model.id)), model)
        _bar(strips, side)
    return strips.figure


def _blocks(rows: Iterable[ResidualCkaRow], model: Model) -> tuple[str, str]:
    """Numbers of a model's first and last block."""
    numbers = block_numbers((r.layer_skip, r.layer_branch) for r in rows if r.model == model.id)
    return str(numbers[0]), str(numbers[-1]) if len(numbers) > 1 else ""


def _matrix(
    strips: Strips, row: int, cell: int, matrix: NDArray[np.float64] | None, model: Model
) -> None:
    ax: Axes = strips.ax(row, cell)
    left, right = float(strips.x(cell, 0)), float(strips.x(cell, 1))
    if matrix is None:
        ax.add_patch(Rectangle((left, 0), right - left, 1, **ABSENT))
        return
    image = ax.imshow(
        matrix,
        origin="lower",
        extent=(left, right, 0, 1),
        aspect="auto",
        cmap=colours(),
        norm=SCALE,
    )
    image.set_label(model.id)


def _bar(strips: Strips, height: float) -> None:
    left, top = strips.sheet.right_of(0)
    bar = strips.sheet.box(left + 0.12, top, 0.11, max(height, 0.8))
    bar.set_label("colour bar")
    strips.figure.colorbar(ScalarMappable(SCALE, colours()), cax=bar)
    bar.tick_params(labelsize=style.SMALL_SIZE, width=0.5, length=2)
    bar.set_ylabel("CKA", size=style.SMALL_SIZE, labelpad=1)
