"""CKA of two models from their Gram files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vitfeat.analyses.cka.compute import cka
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.rows import CkaRow
from vitfeat.numerics.gramfile import GramFile
from vitfeat.tables import write_table


def write_cka(gram_a: Path, gram_b: Path, out: Path, settings: CkaSettings) -> None:
    """Compare all layers of one model with all of another and write the table, of CkaRow.

    Files are of the same images and tokens, the same one read once; there are no rows where a model
    lacks the tokens.
    """
    a = GramFile(gram_a)
    b = a if gram_a == gram_b else GramFile(gram_b)
    write_table(out, CkaRow, cka_rows(a, b, settings))


def cka_rows(a: GramFile, b: GramFile, settings: CkaSettings) -> Iterator[CkaRow]:
    """Yield the values by every estimator of the settings."""
    for estimator in settings.estimators:
        values = cka(
            a,
            b,
            estimator=estimator,
            batch_size=settings.batch_size,
            batch_order=settings.batch_order,
            seed=settings.seed,
        )
        for (i, j), value in np.ndenumerate(values):
            yield CkaRow(
                a.meta.model,
                a.layers[i],
                b.meta.model,
                b.layers[j],
                estimator,
                a.meta.tokens,
                a.meta.made_from,
                b.meta.made_from,
                a.n_images,
                float(value),
            )
