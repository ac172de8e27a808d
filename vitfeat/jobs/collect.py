"""The tables of all scored analyses as one, their best layers, and figures of all together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from vitfeat.analyses.headlines import BestScore, best, collect
from vitfeat.analyses.registry import analyses, scored
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.errors import AnalysisError
from vitfeat.figures import all_tasks
from vitfeat.figures.curves import ScorePoint, score_points
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.model_tables import read_model
from vitfeat.tables import write_table
from vitfeat.text import nearest, plural

logger = logging.getLogger(__name__)


def reader(analysis: str) -> Callable[[Path], list[ScoreRow]]:
    """Return what reads a table of an analysis, and refuses those of others."""

    def read(path: Path) -> list[ScoreRow]:
        rows = read_scores(path)
        if others := {row.task for row in rows} - {analysis}:
            raise AnalysisError(
                f"{path} holds values of {', '.join(sorted(others))}, not of {analysis}: "
                "compute it again"
            )
        return rows

    return read


def collect_tables(
    results: Path,
    tables: Sequence[str],
    models: Sequence[Model],
    out: Path,
    imported: Collection[str] = (),
) -> list[ScoreRow]:
    """Write the values of whole datasets into ``all.csv``, and the best layers into ``best.csv``.

    ``tables`` are ``{analysis}/{dataset}`` below ``results``; rows stand in their order, and in
    that of the models. Of models that are ``imported`` there are those of some analyses. Return all
    values.
    """
    rows: list[ScoreRow] = []
    for table in tables:
        analysis, _, dataset = table.partition("/")
        if analysis not in scored() or not dataset:
            raise AnalysisError(
                f"--tables {table}: no scored analysis with a dataset"
                f"{nearest(analysis, scored())}; allowed: ANALYSIS/DATASET with an analysis of "
                f"{', '.join(scored())}"
            )
        every = analyses()[analysis].vectors
        for model in (m for m in models if every or m.id not in imported):
            rows += collect(
                read_model(results / analysis, dataset, model.id, ".csv", reader(analysis))
            )
    best_rows = best(rows)
    write_table(out / "all.csv", ScoreRow, rows)
    write_table(out / "best.csv", BestScore, best_rows)
    logger.info(
        f"{plural(len(rows), 'value')} of {plural(len(models), 'model')}, "
        f"{plural(len(tables), 'table')} each; {plural(len(best_rows), 'best layer')}"
    )
    return rows


def draw_together(
    rows: Sequence[ScoreRow], models: Sequence[Model], out: Path, printed: Mapping[str, str]
) -> None:
    """Draw all scored analyses together: heat map, where best layers lie, headlines by layer.

    `printed` is what figures say of settings, by analysis.
    """
    said = [f"{scoring.short}: {printed[k]}" for k, scoring in scored().items() if k in printed]
    remarks = [f"Settings. {'; '.join(said)}."] if said else []
    ids = {model.id for model in models}
    mine = [row for row in rows if row.model in ids]
    headlines = all_tasks.headlines(mine, models)
    for name, draw in (
        ("heat_map", all_tasks.heat_map_figure),
        ("best_depth", all_tasks.depths_figure),
    ):
        figure = draw(headlines, remarks)
        save_with_numbers(figure, out / f"{name}.png", BestScore, headlines.rows())
    panels = all_tasks.layers_panels(mine, models)
    figure = all_tasks.layers_figure(panels, models, remarks)
    numbers = (point for analysis, panel in panels for point in score_points([panel], analysis))
    save_with_numbers(figure, out / "by_layer.png", ScorePoint, numbers)
