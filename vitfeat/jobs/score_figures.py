"""Figures of scores across the models of a set, from their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import HEADS, Rank
from vitfeat.figures import groups, scores
from vitfeat.figures.breakout import HeadRow, head_rows
from vitfeat.figures.models import Model
from vitfeat.figures.panels import ScorePanel, ScorePoint, best_points, points
from vitfeat.jobs.collect import reader
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_models


def draw_set(analysis: str, folder: Path, dataset: str, models: Sequence[Model], out: Path) -> None:
    """Draw an analysis, a dataset and some models, from the tables ``{dataset}/{model}.csv``."""
    rows = read_models(folder, dataset, models, ".csv", reader(analysis))
    for name in scored()[analysis].figures:
        _draw(name, analysis, dataset, rows, models, out / f"{name}.png")


def draw_overview(
    analysis: str, folder: Path, datasets: Sequence[str], models: Sequence[Model], out: Path
) -> None:
    """Draw the main scores of an analysis on all datasets, from the top down."""
    panels = {}
    for dataset in datasets:
        rows = read_models(folder, dataset, models, ".csv", reader(analysis))
        panels[dataset] = scores.panels(analysis, dataset, rows, models, Rank.OVERVIEW)
    drawn = [panel for some in panels.values() for panel in some]
    save_with_numbers(scores.overview(panels, models), out, ScorePoint, points(drawn))


Drawing = Callable[[Sequence[ScorePanel], Sequence[Model]], Figure]


def _draw(
    name: str,
    analysis: str,
    dataset: str,
    rows: Sequence[ScoreRow],
    models: Sequence[Model],
    png: Path,
) -> None:
    if name == "groups":
        _groups(analysis, dataset, rows, models, png)
        return
    rank = Rank.DETAILS if name == "details" else Rank.SET
    panels = scores.panels(analysis, dataset, rows, models, rank)
    numbers = best_points(panels) if name == "best" else points(panels)
    save_with_numbers(_DRAWINGS[name](panels, models), png, ScorePoint, numbers)


_DRAWINGS: Mapping[str, Drawing] = {
    "by_layer": scores.layers_figure,
    "families": scores.families_figure,
    "best": scores.best_layers_figure,
    "details": scores.details_figure,
}


def _groups(
    analysis: str, dataset: str, rows: Sequence[ScoreRow], models: Sequence[Model], png: Path
) -> None:
    if scored()[analysis].groups != HEADS:
        found = groups.groups_of(analysis, dataset, rows, models)
        figure = groups.groups_figure(analysis, dataset, found, models)
        save_with_numbers(figure, png, ScoreRow, found.rows)
        return
    panels = groups.head_panels(analysis, dataset, rows, models)
    figure = groups.heads_figure(analysis, panels, models)
    save_with_numbers(figure, png, HeadRow, head_rows(panels))
