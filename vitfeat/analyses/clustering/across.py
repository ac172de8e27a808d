"""Figures of clustering scores across models, from their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.clustering import figures
from vitfeat.analyses.rows import read_clustering
from vitfeat.figures.best import BestRow, best_layers, best_rows
from vitfeat.figures.curves import CurveRow, curve_rows
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_models


def draw_set(folder: Path, dataset: str, models: Sequence[Model], out: Path) -> None:
    """Draw the scores of a dataset: by layer, by family, best layers.

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
    rows = read_models(folder, dataset, models, ".csv", read_clustering)
    panels = figures.panels(dataset, rows, models)
    for name, draw in (("by_layer", figures.layers_figure), ("families", figures.families_figure)):
        figure = draw(panels, models, rows)
        save_with_numbers(figure, out / f"{name}.png", CurveRow, curve_rows(panels))
    figure = figures.best_layers_figure(panels, models, rows)
    save_with_numbers(figure, out / "best.png", BestRow, best_rows(best_layers(panels)))


def draw_overview(
    folder: Path, datasets: Sequence[str], models: Sequence[Model], out: Path
) -> None:
    """Draw the main scores of all datasets.

    Parameters and errors are those of :func:`draw_set`; `out` is the PNG.
    """
    rows = {d: read_models(folder, d, models, ".csv", read_clustering) for d in datasets}
    panels = {d: figures.panels(d, given, models) for d, given in rows.items()}
    drawn = [panel for some in panels.values() for panel in figures.overview_drawn(some)]
    save_with_numbers(figures.overview(panels, models, rows), out, CurveRow, curve_rows(drawn))
