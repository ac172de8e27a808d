"""Figures of similarity from tables, each with a PDF and its numbers beside the PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitfeat.analyses.rows import SimilarityRow, read_similarity
from vitfeat.analyses.similarity.compared import DrawnSimilarity, compared
from vitfeat.analyses.similarity.dendrograms import DrawnMerge, merge_rows, trees
from vitfeat.analyses.similarity.intervals import interval_rows, intervals
from vitfeat.analyses.similarity.measure_matrices import measure_matrices
from vitfeat.analyses.similarity.model_maps import DrawnPlace, model_maps, place_rows
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.models import Model
from vitfeat.jobs.pair_tables import pair_tables
from vitfeat.tables import write_table


def draw(
    folder: Path,
    datasets: Sequence[str],
    models: Sequence[Model],
    out: Path,
    settings: SimilaritySettings,
) -> None:
    """Draw the last layers of models by all measures; trees, maps and intervals from CKA.

    Writes ``all.png``, and where the tables hold CKA ``trees.png``, ``maps.png`` and
    ``intervals.png``, each with a PDF and a CSV.

    Parameters
    ----------
    folder
        Where ``{dataset}/{tokens}/{a}--{b}.csv`` are.
    datasets, models
        Of which, in the order of the figures.
    out
        Folder of the figures.
    settings
        Kinds of tokens.

    Raises
    ------
    AnalysisError
        A table cannot be read, tables do not belong together, or there are no values.
    """
    ids = [model.id for model in models]
    tables = pair_tables(folder, datasets, settings.tokens, ids)
    rows: dict[str, list[SimilarityRow]] = {dataset: [] for dataset in tables}
    left_out = set()
    for dataset, some in tables.items():
        for table in some:
            found = read_similarity(table.path)
            rows[dataset] += found
            if not found and table.model_a == table.model_b:
                left_out.add(table.model_a)
    if left_out and not any(rows.values()):
        raise AnalysisError(
            f"no similarities to draw: no CLS token in {', '.join(sorted(left_out))}; ask for "
            "other tokens in analyses.similarity.tokens, or set analyses.cka.without_cls to mean"
        )
    blocks = [one for dataset, given in rows.items() for one in compared(dataset, given)]
    style.save(measure_matrices(blocks, models, left_out), out / "all.png")
    drawn = (row for one in blocks for row in one.drawn(ids))
    write_table(out / "all.csv", DrawnSimilarity, drawn)
    if cka := [one for one in blocks if one.measure == "cka"]:
        style.save(trees(cka, models, left_out), out / "trees.png")
        write_table(out / "trees.csv", DrawnMerge, merge_rows(cka, models))
        style.save(model_maps(cka, models, left_out), out / "maps.png")
        write_table(out / "maps.csv", DrawnPlace, place_rows(cka, models))
        style.save(intervals(cka, models, left_out), out / "intervals.png")
        write_table(out / "intervals.csv", DrawnSimilarity, interval_rows(cka, models))
