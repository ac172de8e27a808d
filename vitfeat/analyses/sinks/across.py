"""Figures of attention on high-norm tokens across models, from their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.analyses.sinks import figures
from vitfeat.figures.breakout import HeadRow, head_rows
from vitfeat.figures.curves import CurveRow, curve_rows
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_models


def draw_set(folder: Path, dataset: str, models: Sequence[Model], out: Path) -> None:
    """Draw the shares of a dataset: by layer, by family, head by head.

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
    rows = read_models(folder, dataset, models, ".csv", read_scores)
    panels = figures.panels(dataset, rows, models)
    numbers = list(curve_rows(figures.averaged(panels)))
    by_layer = figures.layers_figure({dataset: panels}, rows, models)
    save_with_numbers(by_layer, out / "by_layer.png", CurveRow, numbers)
    families = figures.families_figure(panels, rows, models)
    save_with_numbers(families, out / "families.png", CurveRow, numbers)
    breakout = figures.breakout_figure(panels, rows, models)
    save_with_numbers(breakout, out / "breakout.png", HeadRow, head_rows(panels))


def draw_overview(
    folder: Path, datasets: Sequence[str], models: Sequence[Model], out: Path
) -> None:
    """Draw the shares of all datasets by layer.

    Parameters and errors are those of :func:`draw_set`; `out` is the PNG.
    """
    rows: list[ScoreRow] = []
    panels = {}
    for dataset in datasets:
        some = read_models(folder, dataset, models, ".csv", read_scores)
        panels[dataset] = figures.panels(dataset, some, models)
        rows += some
    numbers = [row for some in panels.values() for row in curve_rows(figures.averaged(some))]
    save_with_numbers(figures.layers_figure(panels, rows, models), out, CurveRow, numbers)
