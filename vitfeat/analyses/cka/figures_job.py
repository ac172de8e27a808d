"""Figures of CKA from tables, each with a PDF and its numbers beside the PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.cka.figures import all_pairs, last_layer, pair
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.rows import CkaRow, read_cka
from vitfeat.errors import AnalysisError, ConfigError
from vitfeat.figures.cka_values import DrawnCka, drawn_rows, similarities
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.pair_tables import read_pairs


def draw(
    folder: Path, datasets: Sequence[str], models: Sequence[Model], out: Path, settings: CkaSettings
) -> None:
    """Draw all pairs of layers of some models, and their last layers, by the first estimator.

    Writes ``all.png`` and ``last_layer.png`` from ``{dataset}/{tokens}/{a}--{b}.csv``.
    """
    ids = [model.id for model in models]
    rows, left_out = read_pairs(
        "cka", "CKA values", folder, datasets, settings.tokens, ids, read_cka
    )
    every = [row for given in rows.values() for row in given]
    _check_estimator(every, settings.estimators[0])
    blocks = [
        block
        for dataset, given in rows.items()
        for block in similarities(
            dataset, [row for row in given if row.estimator == settings.estimators[0]]
        )
    ]
    printed = _printed(settings)
    for name, draw_pairs in (("all", all_pairs), ("last_layer", last_layer)):
        numbers = drawn_rows(blocks, ids, last=draw_pairs is last_layer)
        figure = draw_pairs(blocks, models, left_out, printed)
        save_with_numbers(figure, out / f"{name}.png", DrawnCka, numbers, printed)


def draw_pair(table: Path, out: Path, settings: CkaSettings, *, models: Sequence[Model]) -> None:
    """Draw all layers of one model with all of another, in large, by the first estimator.

    The table is ``{dataset}/{tokens}/{a}--{b}.csv``. `models` are the two, upwards and to the
    right; one alone is drawn with itself.
    """
    if not 1 <= len(models) <= 2:
        raise ConfigError(f"--models takes the two models of the pair, found {len(models)}")
    a, b = models[0], models[-1]
    rows = read_cka(table)
    drawn = settings.estimators[0]
    _check_estimator(rows, drawn)
    dataset = table.parent.parent.name
    blocks = similarities(dataset, [row for row in rows if row.estimator == drawn])
    if len(blocks) != 1:
        raise AnalysisError(
            f"{table}: no values of one token kind to draw, found {len(blocks)} kinds: one of the "
            "models may lack the tokens; choose others"
        )
    numbers = drawn_rows(blocks, (a.id, b.id))
    printed = _printed(settings)
    save_with_numbers(pair(blocks[0], a, b, printed), out, DrawnCka, numbers, printed)


def _printed(settings: CkaSettings) -> str:
    """Return what is printed of the settings of the estimator that is drawn."""
    return settings.model_copy(update={"estimators": settings.estimators[:1]}).printed()


def _check_estimator(rows: Sequence[CkaRow], wanted: str) -> None:
    held = dict.fromkeys(row.estimator for row in rows)
    if held and wanted not in held:
        raise AnalysisError(
            f"no CKA table holds the estimator {wanted!r}, only {', '.join(held)}: draw one of "
            "those, or compute it"
        )
