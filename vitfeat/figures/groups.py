"""Figures of groups of a scored analysis: categories or sequences, each in the best layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.headlines import Column, best, headline_columns
from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import Scoring
from vitfeat.errors import AnalysisError
from vitfeat.figures.columns import Head
from vitfeat.figures.curves import images_text, no_values_of
from vitfeat.figures.heat_map import NARROW, Cells, heat_map
from vitfeat.figures.labels import drawn_width
from vitfeat.figures.models import Model

WIDTH, WIDEST, HALF = 3.6, 0.7, 0.5
"""Inches of all columns of a heat map that are few, and of one of them at most: with an upright
name, and with a turned one."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Scores of single categories or sequences, of every model in its best layer."""

    # Those that are drawn, with the whole dataset (an empty group) among them.
    rows: Sequence[ScoreRow]
    names: Sequence[str]  # groups in the order of the figure, the whole first


def groups_of(
    of: Scoring, dataset: str, rows: Sequence[ScoreRow], models: Sequence[Model]
) -> Groups:
    """Take the headline of every group in each model's best layer by the headline.

    Groups of the form ``sequence/object`` are averaged over the objects of each sequence.
    """
    columns = headline_columns(rows)
    mine = [row for row in rows if columns and _is_of(columns[0], of, row)]
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
            f"no values to draw: the tables of {dataset} hold none of single {of.groups}"
        )
    return Groups(drawn, names)


def groups_figure(of: Scoring, dataset: str, groups: Groups, models: Sequence[Model]) -> Figure:
    """Draw models, from the top down those with values, against groups."""
    held = {(row.model, row.group): row.value for row in groups.rows}
    drawn = [model for model in models if any(model.id == row.model for row in groups.rows)]
    values = np.array([[held.get((m.id, name), np.nan) for name in groups.names] for m in drawn])
    without = [model.label for model in models if model not in drawn]
    score = of.headline.name.format(variant=groups.rows[0].variant)
    whole = images_text((row.n for row in groups.rows if not row.group), of.counted)
    # Few columns are wide, so that their names stand upright.
    wide = min(WIDEST, WIDTH / len(groups.names))
    turned = max(map(drawn_width, groups.names)) > wide
    framed = " The greatest value of a column is framed." if len(drawn) > 1 else ""
    return heat_map(
        Cells(
            [Head(of.groups if name else "", name or "all") for name in groups.names],
            values,
            [[""] * len(groups.names) for _ in drawn],
            turned=turned,
            own_scales=False,
            width=max(NARROW, min(wide, HALF)) if turned else wide,
        ),
        drawn,
        title=f"{of.title}: single {of.groups}",
        note=f"{dataset}, {whole}. {score} times 100, of each model in the layer that is best "
        f"for all together.{framed}",
        scale=f"{score} × 100",
        remarks=[*of.set_to, *no_values_of(without)],
    )


def _is_of(column: Column, of: Scoring, row: ScoreRow) -> bool:
    of_row = row.score, of.fixed(row.variant), row.features
    return of_row == (column.score, column.variant, column.features)


def _together(group: str, rows: Sequence[ScoreRow]) -> ScoreRow:
    """Average rows of one group; of a single one the row stays."""
    if len(rows) == 1:
        return rows[0]._replace(group=group)
    value = float(np.mean([row.value for row in rows]))
    return rows[0]._replace(group=group, n=len(rows), value=value)
