"""Figures of attention metrics across models, from their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.attention import figures
from vitfeat.analyses.rows import read_attention
from vitfeat.figures.averages import AverageRow, average_rows
from vitfeat.figures.breakout import HeadRow, head_rows
from vitfeat.figures.curves import CurveRow, curve_rows
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_models


def draw_set(folder: Path, dataset: str, models: Sequence[Model], out: Path) -> None:
    """Draw the attention metrics of a dataset: by layer, by family, head by head, averages.

    Parameters
    ----------
    folder
        Where ``{dataset}/{model}.csv`` are.
    dataset
        Its name.
    models
        Those to draw.
    out
        Folder of the figures; a PDF and a CSV of the numbers stand beside each PNG.

    Raises
    ------
    AnalysisError
        A table is absent, cannot be read, or is of another model; no model has values.
    """
    rows = read_models(folder, dataset, models, ".csv", read_attention)
    heads = figures.panels(dataset, rows, models)
    panels = [panel.averaged() for panel in heads]
    for name, draw in (("by_layer", figures.layers_figure), ("families", figures.families_figure)):
        figure = draw(panels, models)
        save_with_numbers(figure, out / f"{name}.png", CurveRow, curve_rows(panels))
    figure = figures.breakout_figure(heads, models)
    drawn = head_rows(figures.heads_drawn(heads))
    save_with_numbers(figure, out / "breakout.png", HeadRow, drawn)
    figure = figures.averages_figure(panels, models)
    averages = average_rows(figures.averages_drawn(panels))
    save_with_numbers(figure, out / "averages.png", AverageRow, averages)


def draw_overview(
    folder: Path, datasets: Sequence[str], models: Sequence[Model], out: Path
) -> None:
    """Draw the main attention metrics of all datasets.

    Parameters and errors are those of :func:`draw_set`; `out` is the PNG.
    """
    panels = {}
    for dataset in datasets:
        rows = read_models(folder, dataset, models, ".csv", read_attention)
        panels[dataset] = [p.averaged() for p in figures.panels(dataset, rows, models)]
    drawn = [panel for some in panels.values() for panel in figures.overview_drawn(some)]
    save_with_numbers(figures.overview(panels, models), out, CurveRow, curve_rows(drawn))
