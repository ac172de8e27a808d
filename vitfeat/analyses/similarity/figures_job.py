"""Figures of similarity from tables, each with a PDF and its numbers beside the PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.rows import read_similarity
from vitfeat.analyses.similarity.compared import DrawnSimilarity, compared
from vitfeat.analyses.similarity.dendrograms import DrawnMerge, dendrograms, merge_rows
from vitfeat.analyses.similarity.intervals import interval_rows, intervals
from vitfeat.analyses.similarity.measure_matrices import measure_matrices
from vitfeat.analyses.similarity.model_maps import DrawnPlace, model_maps, place_rows
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.figures.models import Model
from vitfeat.jobs.figure_files import save_with_numbers
from vitfeat.jobs.pair_tables import read_pairs


def draw(
    folder: Path,
    datasets: Sequence[str],
    models: Sequence[Model],
    out: Path,
    settings: SimilaritySettings,
) -> None:
    """Draw the last layers of models by all measures; dendrograms, maps and intervals from CKA.

    Writes ``all.png``, and where the tables hold CKA ``trees.png``, ``maps.png`` and
    ``intervals.png``, each with a PDF and a CSV, from ``{dataset}/{tokens}/{a}--{b}.csv``.
    """
    ids = [model.id for model in models]
    rows, left_out = read_pairs(
        "similarity", "similarities", folder, datasets, settings.tokens, ids, read_similarity
    )
    blocks = [block for dataset, given in rows.items() for block in compared(dataset, given)]
    drawn = (row for block in blocks for row in block.drawn(ids))
    figure = measure_matrices(blocks, models, left_out)
    save_with_numbers(figure, out / "all.png", DrawnSimilarity, drawn)
    cka = [block for block in blocks if block.measure == "cka"]
    if not cka:
        return
    for name, draw_cka, kind, numbers in (
        ("trees", dendrograms, DrawnMerge, merge_rows),
        ("maps", model_maps, DrawnPlace, place_rows),
    ):
        figure = draw_cka(cka, models, left_out)
        save_with_numbers(figure, out / f"{name}.png", kind, numbers(cka, models))
    printed = settings.printed()
    figure = intervals(cka, models, left_out, printed)
    rows_drawn = interval_rows(cka, models)
    save_with_numbers(figure, out / "intervals.png", DrawnSimilarity, rows_drawn, printed)
