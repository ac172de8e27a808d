"""Figures of what skip connections carry, across models, from their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.residual import cka_figures, figures
from vitfeat.analyses.residual.settings import ResidualSettings
from vitfeat.analyses.rows import ResidualCkaRow, read_residual_cka, read_residual_norms
from vitfeat.figures.curves import CurveRow, Panel, curve_rows
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_models


def draw_set(
    folder: Path, dataset: str, models: Sequence[Model], out: Path, settings: ResidualSettings
) -> None:
    """Draw the norm ratios of a dataset by layer and by family, and CKA.

    Parameters
    ----------
    folder
        Where ``{dataset}/{model}.norms.csv`` are and, with token kinds,
        ``{dataset}/{model}.cka.csv``.
    dataset
        Its name.
    models
        Those to draw.
    out
        Folder of the figures; a PDF and a CSV of the numbers stand beside each PNG.
    settings
        Its token kinds say whether there is CKA to draw.

    Raises
    ------
    AnalysisError
        A table is absent, cannot be read, or is of another model; no model has values.
    """
    norms = read_models(folder, dataset, models, ".norms.csv", read_residual_norms)
    panels = figures.norm_panels(dataset, norms, models)
    for name, draw in (("norms", figures.norms_figure), ("families", figures.families_figure)):
        figure = draw(panels, models)
        save_with_numbers(figure, out / f"{name}.png", CurveRow, curve_rows(panels))
    if settings.tokens:
        rows = read_models(folder, dataset, models, ".cka.csv", read_residual_cka)
        figure = cka_figures.cka_figure(dataset, rows, models)
        save_with_numbers(figure, out / "cka.png", ResidualCkaRow, rows)


def draw_overview(
    folder: Path,
    datasets: Sequence[str],
    models: Sequence[Model],
    out: Path,
    settings: ResidualSettings,
) -> None:
    """Draw norm ratios, and CKA within blocks, of all datasets.

    Parameters and errors are those of :func:`draw_set`; `out` is the PNG.
    """
    norms: dict[str, list[Panel]] = {}
    same: dict[str, list[Panel]] = {}
    for dataset in datasets:
        given = read_models(folder, dataset, models, ".norms.csv", read_residual_norms)
        norms[dataset] = figures.norm_panels(dataset, given, models)
        if settings.tokens:
            rows = read_models(folder, dataset, models, ".cka.csv", read_residual_cka)
            same[dataset] = figures.cka_panels(dataset, rows, models)
    every = [panel for some in (*norms.values(), *same.values()) for panel in some]
    figure = figures.overview(norms, same, models)
    save_with_numbers(figure, out, CurveRow, curve_rows(figures.overview_drawn(every)))
