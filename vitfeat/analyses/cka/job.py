"""CKA of two models from their Gram files."""

from __future__ import annotations

from pathlib import Path

from vitfeat.analyses.cka.compute import cka
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.cka.tables import Row, table, write_csv
from vitfeat.numerics.gramfile import GramFile


def write_cka(
    gram_a: Path,
    gram_b: Path,
    out: Path,
    settings: CkaSettings,
) -> None:
    """Compare all layers of one model with all of another and write the table.

    Parameters
    ----------
    gram_a, gram_b
        Files with the Gram matrices of the same images and tokens; the same file is read once.
    out
        The table to write; without rows where a model lacks the tokens.
    settings
        Which estimators, and their batches.

    Raises
    ------
    AnalysisError
        A file cannot be read, or the two cannot be compared.
    """
    a = GramFile(gram_a)
    b = a if gram_a == gram_b else GramFile(gram_b)
    rows: list[Row] = []
    for estimator in settings.estimators:
        values = cka(
            a,
            b,
            estimator=estimator,
            batch_size=settings.batch_size,
            batch_order=settings.batch_order,
            seed=settings.seed,
        )
        rows += table(values, a, b, estimator=estimator)
    write_csv(out, rows)
