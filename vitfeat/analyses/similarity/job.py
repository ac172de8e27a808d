"""Similarity of two models from their Gram files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitfeat.analyses.rows import SimilarityRow
from vitfeat.analyses.similarity.compare import similarity
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.numerics.gramfile import GramFile
from vitfeat.store.limits import spread
from vitfeat.tables import write_table


def write_similarity(
    gram_a: Path,
    gram_b: Path,
    out: Path,
    settings: SimilaritySettings,
) -> None:
    """Compare two models and write the table.

    Parameters
    ----------
    gram_a, gram_b
        Files with the Gram matrices of the same images and tokens.
    out
        The table to write, of SimilarityRow; without rows where a model lacks the tokens.
    settings
        Measures, layers and intervals, and how many images are compared, spread evenly over the
        dataset; all where there are no more.

    Raises
    ------
    AnalysisError
        A file cannot be read, or the two cannot be compared.
    """
    a, b = GramFile(gram_a), GramFile(gram_b)
    images = settings.images
    some = images is not None and images < a.n_images
    rows = similarity(
        a,
        b,
        names=settings.measures,
        layers=settings.layers,
        neighbours=settings.neighbours,
        variance=settings.variance,
        images=np.array(spread(images, a.n_images), dtype=np.intp) if images and some else None,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    write_table(out, SimilarityRow, rows)
