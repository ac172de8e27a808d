"""Figures across the models of a set, from their tables: those of every analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vitfeat.analyses.base import Across, Analysis
from vitfeat.analyses.scoring import Curves, Scoring
from vitfeat.figures.across import draw, overview
from vitfeat.figures.models import Model
from vitfeat.jobs.collect import reader
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_models


def draw_set(
    analysis: Analysis,
    settings: Any,
    folder: Path,
    dataset: str,
    models: Sequence[Model],
    out: Path,
) -> None:
    """Draw the figures of a dataset and some models.

    Tables are ``{folder}/{dataset}/{model}.csv``; a PDF and a CSV of the numbers stand beside each
    PNG in `out`.
    """
    tables = [
        (of, _rows(analysis, of, folder, dataset, models)) for of in _asked(analysis, settings)
    ]
    for of, rows in tables:
        for name, figure in of.figures.items():
            drawn = draw(figure, analysis.name, of, dataset, rows, models)
            save_with_numbers(drawn.figure, out / f"{name}.png", drawn.kind, drawn.rows, of.printed)
        for name, call in of.pictures.items():
            picture: Callable[..., Any] = analysis.function(call)
            save_with_numbers(
                picture(dataset, rows, models), out / f"{name}.png", type(rows[0]), rows
            )


def draw_overview(
    analysis: Analysis,
    settings: Any,
    folder: Path,
    datasets: Sequence[str],
    models: Sequence[Model],
    out: Path,
) -> None:
    """Draw the main measures of all datasets, from the top down; `out` is the PNG.

    The rest, and errors, are those of :func:`draw_set`.
    """
    asked = _asked(analysis, settings)
    tables = [(of, {d: _rows(analysis, of, folder, d, models) for d in datasets}) for of in asked]
    assert isinstance(analysis.across, Across)
    title = analysis.across.title or f"{asked[0].title} by layer"
    drawn = overview(analysis.name, title, tables, models)
    save_with_numbers(drawn.figure, out, drawn.kind, drawn.rows, asked[0].printed)


def _asked(analysis: Analysis, settings: Any) -> list[Curves]:
    assert isinstance(analysis.across, Across)
    return analysis.across.asked(settings)


def _rows(
    analysis: Analysis, of: Curves, folder: Path, dataset: str, models: Sequence[Model]
) -> list[Any]:
    read = reader(analysis.name) if isinstance(of, Scoring) else of.read
    return read_models(folder, dataset, models, of.suffix, read)
