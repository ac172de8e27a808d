"""Figures of all tasks together: headlines at the best layers, where these lie, and by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.headlines import (
    BestScore,
    Column,
    best,
    headline_columns,
    headline_rows,
)
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError
from vitfeat.figures.across import ACROSS, Points, below, one_chance
from vitfeat.figures.columns import Head
from vitfeat.figures.curves import Panel, no_values_of
from vitfeat.figures.depths import DepthColumn, depths
from vitfeat.figures.heat_map import Cells, heat_map
from vitfeat.figures.lines import Section, by_layer
from vitfeat.figures.models import Model

OTHER = "\N{DAGGER}"
"""Behind values of other features than those of their column."""


@dataclass(frozen=True, eq=False)
class Headlines:
    """The headlines of some models at their best layers: of each column, rows by model.

    `without` are the labels of models that have none.
    """

    columns: Sequence[Column]
    found: Sequence[dict[str, BestScore]]
    models: Sequence[Model]
    without: Sequence[str]

    def rows(self) -> Iterator[BestScore]:
        """Return what is drawn, model by model."""
        for model in self.models:
            yield from (column[model.id] for column in self.found if model.id in column)

    def is_other(self, place: int, model: Model) -> bool:
        """Say whether a model has other features than the column's."""
        row = self.found[place].get(model.id)
        return row is not None and row.features != self.columns[place].features


def headlines(rows: Iterable[ScoreRow], models: Sequence[Model]) -> Headlines:
    """Find the best layer of every model by the headline of each task and dataset."""
    ids = {model.id for model in models}
    found = best([row for row in rows if row.model in ids])
    columns = headline_columns(found)
    cells = headline_rows(found, columns)
    held = [model for model in models if any(model.id in column for column in cells)]
    if not held:
        raise AnalysisError("no values to draw: the tables of the tasks hold none of these models")
    without = [model.label for model in models if model not in held]
    return Headlines(columns, cells, held, without)


def heat_map_figure(of: Headlines, remarks: Sequence[str] = ()) -> Figure:
    """Draw models against tasks at the best layers, whose numbers stand behind the values."""
    values = np.full((len(of.models), len(of.columns)), np.nan)
    notes = [[""] * len(of.columns) for _ in of.models]
    for row, model in enumerate(of.models):
        for place, column in enumerate(of.found):
            if model.id in column:
                values[row, place] = column[model.id].value
                dagger = OTHER if of.is_other(place, model) else ""
                notes[row][place] = f"{column[model.id].layer}{dagger}"
    several = (
        " Every column has its own scale of colours; its greatest value is framed."
        if len(of.models) > 1
        else ""
    )
    return heat_map(
        Cells([_head(column) for column in of.columns], values, notes, turned=True),
        of.models,
        title="All tasks in the best layer",
        note="Values times 100; behind them, small, the number of the best layer, counted from 0 "
        f"and chosen on the same data.{several}",
        remarks=[*_remarks(of, dagger=True), *remarks],
    )


def depths_figure(of: Headlines, remarks: Sequence[str] = ()) -> Figure:
    """Draw where the best layers lie, a column a task and dataset."""
    columns = [
        DepthColumn(_head(column), {model: row.depth for model, row in rows.items()})
        for column, rows in zip(of.columns, of.found, strict=True)
    ]
    return depths(
        columns,
        of.models,
        title="Where the best layers lie",
        note="Depth of the layer that is best by the headline of each task, chosen on the same "
        "data: 0 is the first layer, 1 the last. Grey bar: median of the trained models.",
        remarks=[*_remarks(of, dagger=False), *remarks],
    )


def layers_panels(rows: Sequence[ScoreRow], models: Sequence[Model]) -> list[tuple[str, Panel]]:
    """Return the headlines of every analysis and dataset by layer: its name, and a panel."""
    ids = {model.id for model in models}
    here = [row for row in rows if row.model in ids]
    return [(column.task, _panel(column, here, models)) for column in headline_columns(here)]


def layers_figure(
    given: Sequence[tuple[str, Panel]], models: Sequence[Model], remarks: Sequence[str] = ()
) -> Figure:
    """Draw the headline of every analysis and dataset by layer, each on its own scale."""
    panels = one_chance([panel for _, panel in given], models)
    return by_layer(
        [Section("", panels, ACROSS)],
        models,
        title="All tasks by layer",
        note="The headline of each task and dataset, each on its own scale; layers counted from 0.",
        remarks=[*_features(given), *below(panels, models), *remarks],
    )


def _features(given: Sequence[tuple[str, Panel]]) -> list[str]:
    """Say which features are drawn, of the analyses that there are several for."""
    titles: dict[str, dict[str, None]] = {}
    for analysis, panel in given:
        scoring = scored()[analysis]
        if len(scoring.kinds) > 1 and not scoring.by_variant:
            titles.setdefault(scoring.kinds[panel.features], {})[scoring.short] = None
    return [f"{kind}: {', '.join(some)}." for kind, some in titles.items()]


def _panel(column: Column, rows: Sequence[ScoreRow], models: Sequence[Model]) -> Panel:
    of = scored()[column.task]
    here = [row for row in rows if (row.task, row.dataset) == (column.task, column.dataset)]
    variant, kind = ("", column.variant) if of.by_variant else (column.variant, column.features)
    points = Points(of, column.dataset, here)
    series = next(
        one for one in points.series() if (one.score, one.variant) == (column.score, variant)
    )
    (panel,) = points.panels([series], [kind], models)
    title = f"{of.short} on {column.dataset} ({of.headline_of(column.variant)})"
    return replace(panel, measure=title)


def _head(column: Column) -> Head:
    scoring = scored()[column.task]
    shown = scoring.kinds.get(column.features, "") if len(scoring.kinds) > 1 else ""
    measure = scoring.headline_of(column.variant)
    return Head(scoring.short, f"{column.dataset}\n{measure}\n{shown}")


def _remarks(of: Headlines, *, dagger: bool) -> list[str]:
    said = no_values_of(of.without)
    others: dict[str, dict[str, None]] = {}
    for place, column in enumerate(of.found):
        for model in of.models:
            if of.is_other(place, model):
                scoring = scored()[of.columns[place].task]
                used = scoring.kind_named(column[model.id].features)
                others.setdefault(used, {})[model.label] = None
    mark = f"{OTHER} " if dagger else ""
    said += [
        f"{mark}{used[:1].upper()}{used[1:]} instead of the column's features: {', '.join(labels)}."
        for used, labels in others.items()
    ]
    return said
