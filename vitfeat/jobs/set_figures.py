"""Figures across the models of a set, from the tables of attention, clustering and residual."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from vitfeat.analyses.attention import figures as attention
from vitfeat.analyses.residual import cka_figures as residual_cka
from vitfeat.analyses.residual import figures as residual
from vitfeat.analyses.rows import (
    ResidualCkaRow,
    read_attention,
    read_residual_cka,
    read_residual_norms,
)
from vitfeat.figures.averages import AverageRow, average_rows
from vitfeat.figures.breakout import HeadRow, head_rows
from vitfeat.figures.curves import CurveRow, Panel, curve_rows
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_models


def attention_set(folder: Path, dataset: str, models: Sequence[Model], out: Path) -> None:
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
    heads = attention.panels(dataset, rows, models)
    panels = [panel.averaged() for panel in heads]
    save_with_numbers(
        attention.layers_figure(panels, models), out / "by_layer.png", CurveRow, _curves(panels)
    )
    save_with_numbers(
        attention.families_figure(panels, models), out / "families.png", CurveRow, _curves(panels)
    )
    drawn = attention.heads_drawn(heads)
    save_with_numbers(
        attention.breakout_figure(heads, models), out / "breakout.png", HeadRow, head_rows(drawn)
    )
    averages = average_rows(attention.averages_drawn(panels))
    save_with_numbers(
        attention.averages_figure(panels, models), out / "averages.png", AverageRow, averages
    )


def attention_overview(
    folder: Path, datasets: Sequence[str], models: Sequence[Model], out: Path
) -> None:
    """Draw the main attention metrics of all datasets.

    Parameters
    ----------
    folder, models
        As in :func:`attention_set`.
    datasets
        From the top down.
    out
        The PNG; a PDF and a CSV of the numbers stand beside it.

    Raises
    ------
    AnalysisError
        As in :func:`attention_set`.
    """
    panels = {}
    for dataset in datasets:
        rows = read_models(folder, dataset, models, ".csv", read_attention)
        panels[dataset] = [p.averaged() for p in attention.panels(dataset, rows, models)]
    drawn = [panel for some in panels.values() for panel in attention.overview_drawn(some)]
    save_with_numbers(attention.overview(panels, models), out, CurveRow, _curves(drawn))


def residual_set(
    folder: Path, dataset: str, models: Sequence[Model], out: Path, *, cka: bool = True
) -> None:
    """Draw what skip connections carry: norm ratios by layer and by family, and CKA.

    Parameters and errors are those of :func:`attention_set`; the tables are
    ``{dataset}/{model}.norms.csv`` and, with `cka`, ``{dataset}/{model}.cka.csv``.
    """
    norms = read_models(folder, dataset, models, ".norms.csv", read_residual_norms)
    panels = residual.norm_panels(dataset, norms, models)
    save_with_numbers(
        residual.norms_figure(panels, models), out / "norms.png", CurveRow, _curves(panels)
    )
    save_with_numbers(
        residual.families_figure(panels, models), out / "families.png", CurveRow, _curves(panels)
    )
    if cka:
        rows = read_models(folder, dataset, models, ".cka.csv", read_residual_cka)
        figure = residual_cka.cka_figure(dataset, rows, models)
        save_with_numbers(figure, out / "cka.png", ResidualCkaRow, rows)


def residual_overview(
    folder: Path,
    datasets: Sequence[str],
    models: Sequence[Model],
    out: Path,
    *,
    cka: bool = True,
) -> None:
    """Draw norm ratios, and CKA within blocks, of all datasets.

    Parameters and errors are those of :func:`attention_overview`; the tables are those of
    :func:`residual_set`.
    """
    norms: dict[str, list[Panel]] = {}
    same: dict[str, list[Panel]] = {}
    for dataset in datasets:
        given = read_models(folder, dataset, models, ".norms.csv", read_residual_norms)
        norms[dataset] = residual.norm_panels(dataset, given, models)
        if cka:
            rows = read_models(folder, dataset, models, ".cka.csv", read_residual_cka)
            same[dataset] = residual.cka_panels(dataset, rows, models)
    every = [panel for some in (*norms.values(), *same.values()) for panel in some]
    drawn = residual.overview_drawn(every)
    save_with_numbers(residual.overview(norms, same, models), out, CurveRow, _curves(drawn))


SETS: Mapping[str, Callable[..., None]] = {
    "attention": attention_set,
    "residual": residual_set,
}
"""What draws the figures of one dataset and set of models, by analysis."""

OVERVIEWS: Mapping[str, Callable[..., None]] = {
    "attention": attention_overview,
    "residual": residual_overview,
}
"""What draws the figure of all datasets, by analysis."""


def _curves(panels: Iterable[Panel]) -> Iterable[CurveRow]:
    return curve_rows(panels)
