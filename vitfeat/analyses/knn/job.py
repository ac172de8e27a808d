"""Classes of test images by votes of their nearest training images, from two stores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vitfeat.analyses.knn.compute import TOPS, knn_ranks
from vitfeat.analyses.knn.settings import KnnSettings
from vitfeat.analyses.rows import ScoreRow, score_rows
from vitfeat.device import torch_device_name
from vitfeat.errors import AnalysisError
from vitfeat.jobs.classes import Pair, open_pair, top_rows
from vitfeat.jobs.features import named
from vitfeat.tables import write_table
from vitfeat.text import plural

logger = logging.getLogger(__name__)


def write_knn(
    test_path: Path,
    train_path: Path,
    out: Path,
    settings: KnnSettings,
    *,
    layers: Sequence[str | int] = ("all",),
    max_bytes: int = 2 * 2**30,
    threads: int = 1,
    device: str = "auto",
) -> None:
    """Classify the images of a store from those of another and write the table of ScoreRow.

    Rows are ``top1`` and ``top5`` of each layer, features and ``k={neighbours}``. A k above the
    number of training images is that number, and its rows say so; see
    :func:`vitfeat.jobs.classes.open_pair` for what becomes of classes.
    """
    pair = open_pair(test_path, train_path)
    counts = _capped(settings.neighbours, pair)
    chosen = pair.layers(layers)
    rows: list[ScoreRow] = []
    for kind in pair.kinds(settings.features, "knn"):
        for layer in chosen:
            test, train = (
                partial(part.features, kind, layer, final_norm=settings.final_norm)
                for part in (pair.test, pair.train)
            )
            try:
                ranks = knn_ranks(
                    test,
                    pair.test.classes,
                    train,
                    pair.train.classes,
                    counts,
                    temperature=settings.temperature,
                    max_bytes=max_bytes,
                    threads=threads,
                    device=torch_device_name(device),
                )
            except AnalysisError as error:
                raise AnalysisError(f"{pair.where(kind, layer)}: {error}") from error
            name = named(kind, settings.final_norm)
            row = score_rows("knn", pair.test.store, layer=layer, features=name)
            for k, of_k in zip(counts, ranks, strict=True):
                rows += top_rows(partial(row, variant=f"k={k}"), of_k, TOPS)
    write_table(out, ScoreRow, rows)


def _capped(neighbours: Sequence[int], pair: Pair) -> list[int]:
    n = len(pair.train)
    if beyond := [k for k in neighbours if k > n]:
        logger.warning(
            f"{pair.test.store.model}: {pair.train.dataset} has {plural(n, 'labelled image')}: "
            f"k={n} in place of {', '.join(f'k={k}' for k in beyond)}"
        )
    return list(dict.fromkeys(min(k, n) for k in neighbours))
