"""Figures of a task's groups: categories and sequences in the best layer, heads of every layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.headlines import Column, best, headline_columns
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.breakout import HeadPanel, Heads, breakout
from vitfeat.figures.columns import Head
from vitfeat.figures.curves import images_text, least, no_values_of
from vitfeat.figures.fonts import text_width
from vitfeat.figures.heat_map import NARROW, Cells, heat_map
from vitfeat.figures.labels import HINTING
from vitfeat.figures.models import Model

WIDTH, WIDEST, HALF = 3.6, 0.7, 0.5
"""Inches of all columns of a heat map that are few, and of one of them at most: with an upright
name, and with a turned one."""

HEAD = "head"
"""Variant of rows whose groups are heads."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Scores of single categories or sequences, of every model in its best layer.

    Attributes
    ----------
    rows
        Those that are drawn, with the whole dataset (an empty group) among them.
    names
        Groups in the order of the figure, the whole first.
    """

    rows: Sequence[ScoreRow]
    names: Sequence[str]


def groups_of(task: str, dataset: str, rows: Sequence[ScoreRow], models: Sequence[Model]) -> Groups:
    """Take the headline of every group in each model's best layer by the headline.

    Groups of the form ``sequence/object`` are averaged over the objects of each sequence.

    Parameters
    ----------
    task, dataset
        Their names.
    rows
        Of all models, of this task and dataset.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        No group has a value.
    """
    columns = headline_columns(rows)
    mine = [row for row in rows if columns and _is_of(columns[0], row)]
    layers = {row.model: row.layer for row in best(mine)}
    found: defaultdict[str, dict[str, list[ScoreRow]]] = defaultdict(dict)
    for row in mine:
        if layers.get(row.model) == row.layer:
            name = row.group.partition("/")[0]
            found[row.model].setdefault(name, []).append(row)
    drawn = [_together(group, some) for model in models for group, some in found[model.id].items()]
    names = sorted({row.group for row in drawn})
    if len(names) < 2:
        raise AnalysisError(
            f"no values to draw: the tables of {task} on {dataset} hold none of single groups"
        )
    return Groups(drawn, names)


def groups_figure(task: str, dataset: str, of: Groups, models: Sequence[Model]) -> Figure:
    """Draw models against groups.

    Parameters
    ----------
    task, dataset
        Their names.
    of
        From :func:`groups_of`.
    models
        Those with values are drawn, from the top down.
    """
    held = {(row.model, row.group): row.value for row in of.rows}
    drawn = [model for model in models if any(model.id == row.model for row in of.rows)]
    values = np.array([[held.get((m.id, name), np.nan) for name in of.names] for m in drawn])
    without = [model.label for model in models if model not in drawn]
    scoring = scored()[task]
    score = scoring.headline.name.format(variant=of.rows[0].variant)
    whole = images_text((row.n for row in of.rows if not row.group), scoring.counted)
    # Few columns are wide, so that their names stand upright.
    wide = min(WIDEST, WIDTH / len(of.names))
    turned = max(text_width(name, style.SMALL_SIZE) for name in of.names) * HINTING > wide
    framed = " The greatest value of a column is framed." if len(drawn) > 1 else ""
    return heat_map(
        Cells(
            [Head(scoring.groups if name else "", name or "all") for name in of.names],
            values,
            [[""] * len(of.names) for _ in drawn],
            turned=turned,
            own_scales=False,
            width=max(NARROW, min(wide, HALF)) if turned else wide,
        ),
        drawn,
        title=f"{scoring.title}: single {scoring.groups}",
        note=f"{dataset}, {whole}. {score} times 100, of each model in the layer that is best "
        f"for all together.{framed}",
        scale=f"{score} × 100",
        remarks=no_values_of(without),
    )


def head_panels(
    task: str, dataset: str, rows: Iterable[ScoreRow], models: Sequence[Model]
) -> list[HeadPanel]:
    """Put the scores of single heads together, a panel for each kind of features.

    Parameters
    ----------
    task, dataset
        Their names.
    rows
        Of all models; heads are the groups of the variant ``head``.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        No head has a value.
    """
    scoring = scored()[task]
    found: defaultdict[tuple[str, str], dict[tuple[int, int], ScoreRow]] = defaultdict(dict)
    for row in rows:
        if row.variant == HEAD and row.score == scoring.headline.score:
            found[row.features, row.model][row.layer, int(row.group)] = row
    if not found:
        raise AnalysisError(
            f"no values to draw: the tables of {task} on {dataset} hold none of single heads"
        )
    return [
        HeadPanel(
            dataset,
            kind,
            f"{scoring.headline.name}, {name}",
            "",
            [_heads(m, found[kind, m.id]) for m in models if (kind, m.id) in found],
        )
        for kind, name in scoring.kinds.items()
        if any(features == kind for features, _ in found)
    ]


def heads_figure(task: str, panels: Sequence[HeadPanel], models: Sequence[Model]) -> Figure:
    """Draw every head of every model by layer.

    Parameters
    ----------
    task
        Its key.
    panels
        From :func:`head_panels`.
    models
        Those to draw.
    """
    counts = [heads.n_images for panel in panels for heads in panel.heads]
    present = {heads.model.id for panel in panels for heads in panel.heads}
    without = [model.label for model in models if model.id not in present]
    return breakout(
        panels,
        models,
        title=f"{scored()[task].title}, head by head",
        note=f"{panels[0].dataset}, {images_text(counts)}. A dot for each head, a bar for the mean "
        "of a layer; layers from left to right.",
        remarks=no_values_of(without),
    )


def _is_of(column: Column, row: ScoreRow) -> bool:
    of_row = row.score, scored()[row.task].fixed(row.variant), row.features
    return of_row == (column.score, column.variant, column.features)


def _together(group: str, rows: Sequence[ScoreRow]) -> ScoreRow:
    """Average rows of one group; of a single one the row stays."""
    if len(rows) == 1:
        return rows[0]._replace(group=group)
    value = float(np.mean([row.value for row in rows]))
    return rows[0]._replace(group=group, n=len(rows), value=value)


def _heads(model: Model, rows: dict[tuple[int, int], ScoreRow]) -> Heads:
    layers = tuple(sorted({layer for layer, _ in rows}))
    values = np.full((len(layers), 1 + max(head for _, head in rows)), np.nan)
    for (layer, head), row in rows.items():
        values[layers.index(layer), head] = row.value
    return Heads(model, layers, values, least(row.n for row in rows.values()))
