"""Figures of CKA from tables, each with a PDF and its numbers beside the PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vitfeat.analyses.cka.figures import all_pairs, last_layer
from vitfeat.analyses.cka.pair_figure import pair
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.cka.tables import Row, read_csv
from vitfeat.errors import AnalysisError, ConfigError
from vitfeat.figures import style
from vitfeat.figures.cka_values import DrawnCka, drawn_rows, similarities
from vitfeat.figures.models import Model
from vitfeat.jobs.pair_tables import PairTable, pair_tables
from vitfeat.tables import write_table


def draw(
    folder: Path, datasets: Sequence[str], models: Sequence[Model], out: Path, settings: CkaSettings
) -> None:
    """Draw all pairs of layers of some models, and their last layers.

    Parameters
    ----------
    folder
        Where ``{dataset}/{tokens}/{a}--{b}.csv`` are.
    datasets, models
        Of which, in the order of the figures.
    out
        Folder of the figures.
    settings
        Kinds of tokens, and estimators, of which the first is drawn.

    Raises
    ------
    AnalysisError
        As :func:`draw_tables`.
    """
    tables = pair_tables(folder, datasets, settings.tokens, [model.id for model in models])
    outs = (out / "all.png", out / "last_layer.png")
    draw_tables(tables, models, *outs, estimator=settings.estimators[0])


def draw_tables(
    tables: Mapping[str, Sequence[PairTable]],
    models: Sequence[Model],
    out_all: Path,
    out_last: Path,
    *,
    estimator: str | None = None,
) -> None:
    """Draw all pairs of layers, and the last layers.

    Parameters
    ----------
    tables
        Of each dataset, the tables of its pairs, of each model with itself too; all token kinds
        may be among them.
    models
        In the order of the figures.
    out_all, out_last
        The PNG files.
    estimator
        The one to draw, where tables hold several; the first in the tables if none is named.

    Raises
    ------
    AnalysisError
        A table that cannot be read, an estimator that is in none, models without CLS token alone
        and nothing in its place, or as :func:`vitfeat.analyses.cka.figures.all_pairs`.
    """
    rows: dict[str, list[Row]] = {dataset: [] for dataset in tables}
    left_out = set()
    for dataset, some in tables.items():
        for table in some:
            found = read_csv(table.path)
            rows[dataset] += found
            if not found and table.tokens == "cls" and table.model_a == table.model_b:
                left_out.add(table.model_a)
    if left_out and not any(rows.values()):
        raise AnalysisError(
            f"no CKA values to draw: no CLS token in {', '.join(sorted(left_out))}; ask for other "
            "tokens in analyses.cka.tokens, or set analyses.cka.without_cls to mean"
        )
    drawn = _estimator([row for given in rows.values() for row in given], estimator)
    blocks = [
        block
        for dataset, given in rows.items()
        for block in similarities(dataset, (row for row in given if row.estimator == drawn))
    ]
    ids = [model.id for model in models]
    for out, draw, last in ((out_all, all_pairs, False), (out_last, last_layer, True)):
        style.save(draw(blocks, models, left_out), out)
        write_table(out.with_suffix(".csv"), DrawnCka, drawn_rows(blocks, ids, last=last))


def draw_pair(table: Path, out: Path, settings: CkaSettings, *, models: Sequence[Model]) -> None:
    """Draw all layers of one model with all of another, in large.

    Parameters
    ----------
    table
        Of the pair, ``{dataset}/{tokens}/{a}--{b}.csv``.
    out
        The PNG.
    settings
        Estimators, of which the first is drawn.
    models
        The two: upwards and to the right. One alone is drawn with itself.

    Raises
    ------
    ConfigError
        There are not one or two models.
    AnalysisError
        The table cannot be read, is of other models or holds no values.
    """
    if not 1 <= len(models) <= 2:
        raise ConfigError(f"--models takes the two models of the pair, found {len(models)}")
    a, b = models[0], models[-1]
    rows = read_csv(table)
    drawn = _estimator(rows, settings.estimators[0])
    dataset = table.parent.parent.name
    blocks = similarities(dataset, (row for row in rows if row.estimator == drawn))
    if len(blocks) != 1:
        raise AnalysisError(
            f"{table}: no values of one token kind to draw, found {len(blocks)} kinds: one of the "
            "models may lack the tokens; choose others"
        )
    style.save(pair(blocks[0], a, b), out)
    write_table(out.with_suffix(".csv"), DrawnCka, drawn_rows(blocks, (a.id, b.id)))


def _estimator(rows: Sequence[Row], wanted: str | None) -> str | None:
    """Return the estimator to draw of those in the rows; None where there are no rows."""
    held = dict.fromkeys(row.estimator for row in rows)
    found = wanted or next(iter(held), None)
    if held and found not in held:
        raise AnalysisError(
            f"no CKA table holds the estimator {found!r}, only {', '.join(held)}: draw one of "
            "those, or compute it"
        )
    return found
