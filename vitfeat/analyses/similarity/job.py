"""Similarity of the layers of two models by several measures, with confidence intervals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.cka.compute import check_pair
from vitfeat.analyses.rows import SimilarityRow
from vitfeat.analyses.similarity.half_samples import Halves, half_samples, interval, standard_error
from vitfeat.analyses.similarity.layers import Floats, Layer, layer_of
from vitfeat.analyses.similarity.measures import Measure, measures
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gramfile import REMEDY, GramFile
from vitfeat.store.limits import spread
from vitfeat.tables import write_table

logger = logging.getLogger(__name__)


def write_similarity(gram_a: Path, gram_b: Path, out: Path, settings: SimilaritySettings) -> None:
    """Compare two models and write the table, of SimilarityRow.

    Files are of the same images and tokens; there are no rows where a model lacks the tokens.
    """
    write_table(out, SimilarityRow, similarity(GramFile(gram_a), GramFile(gram_b), settings))


def similarity(a: GramFile, b: GramFile, settings: SimilaritySettings) -> list[SimilarityRow]:
    """Compare layers of two models, the same path read once.

    Images are spread evenly over the dataset where some are asked for.

    Rows come measure by measure, in the settings' order; none where a model was left out. Values
    are NaN where a measure does not exist, ends of intervals also where there is no interval. A
    line is logged for layers and pairs of layers without a value, and for a model that was left
    out.
    """
    known = measures(settings.neighbours, settings.variance)
    names = settings.measures
    if not check_pair(a, b, "similarity"):
        return []
    n, images = a.n_images, None
    if settings.images is not None and settings.images < n:
        images = np.array(spread(settings.images, n), dtype=np.intp)
        n = len(images)
    for name in names:
        _check_images(name, known[name], n, a.where, settings.resamples)
    halves = half_samples(n, settings.resamples, settings.seed) if settings.resamples else None
    first = -1 if settings.layers == "last" else 0
    places = [range(len(file.layers))[first:] for file in (a, b)]
    values: dict[str, Floats] = {}
    # What layers cost once is shared by the measures that need the same, and dropped after them.
    for prepare in dict.fromkeys(known[name].prepare for name in names):
        sharing = [name for name in names if known[name].prepare is prepare]
        side_a = _prepared(a, places[0], images, prepare, sharing)
        side_b = side_a
        if a.path != b.path:
            side_b = _prepared(b, places[1], images, prepare, sharing)
        for name in sharing:
            values[name] = _compare(known[name], side_a, side_b, halves, settings.confidence)
            held = [np.array([layer is not None for layer in side]) for side in (side_a, side_b)]
            there = np.outer(held[0], held[1])
            if missing := int(np.isnan(values[name][0][there]).sum()):
                logger.warning(
                    f"no {name} for {missing} of {there.size} pairs of layers of "
                    f"{a.meta.model} and {b.meta.model} ({a.meta.tokens}): {known[name].saturated}"
                )
    return [
        SimilarityRow(
            model_a=a.meta.model,
            layer_a=a.layers[place_a],
            model_b=b.meta.model,
            layer_b=b.layers[place_b],
            measure=name,
            setting=known[name].setting,
            tokens=a.meta.tokens,
            made_from_a=a.meta.made_from,
            made_from_b=b.meta.made_from,
            n_images=n,
            value=float(values[name][0, i, j]),
            low=float(values[name][1, i, j]),
            high=float(values[name][2, i, j]),
            confidence=settings.confidence,
        )
        for name in names
        for i, place_a in enumerate(places[0])
        for j, place_b in enumerate(places[1])
    ]


def _check_images(name: str, measure: Measure[Any], n: int, where: str, resamples: int) -> None:
    if n < measure.min_images:
        raise AnalysisError(
            f"{name} needs at least {measure.min_images} images, {where} has {n}: take more images"
        )
    if resamples and measure.resample is not None and n < 2 * measure.min_images:
        raise AnalysisError(
            f"intervals of {name} rest on halves of at least {measure.min_images} images, {where} "
            f"has {n} in all: take more images, or set resamples to 0"
        )


def _prepared(
    file: GramFile,
    places: Sequence[int],
    images: NDArray[np.intp] | None,
    prepare: Callable[[Layer], Any],
    sharing: Sequence[str],
) -> list[Any]:
    prepared = []
    for place in places:
        layer = layer_of(file.gram(place), images)
        if not np.isfinite(layer.centred).all():
            raise AnalysisError(
                f"Gram file {file.where} holds values that are not finite: {REMEDY}"
            )
        prepared.append(prepare(layer))
        if prepared[-1] is None:
            logger.warning(
                f"no {' and no '.join(sharing)} for layer {file.layers[place]} of "
                f"{file.meta.model} ({file.meta.tokens}): its features do not tell the images apart"
            )
    return prepared


def _compare(
    measure: Measure[Any],
    side_a: Sequence[Any],
    side_b: Sequence[Any],
    halves: Halves | None,
    confidence: float,
) -> Floats:
    """Compare all layers of a side with all of the other, None among which gives NaN.

    Returns (3, layer_a, layer_b): similarity, and the lower and upper ends of its interval.
    """
    values = np.full((3, len(side_a), len(side_b)), np.nan)
    rows, columns = (
        [i for i, layer in enumerate(side) if layer is not None] for side in (side_a, side_b)
    )
    for i in rows:
        for j in columns:
            values[0, i, j] = measure.compare(side_a[i], side_b[j])
    if halves is not None and measure.resample is not None and rows and columns:
        left = [side_a[i] for i in rows]
        right = left if side_b is side_a else [side_b[j] for j in columns]
        error = standard_error(measure.resample(left, right, halves), halves.shape[1])
        inner = np.ix_(rows, columns)
        ends = interval(values[0][inner], error, confidence)
        values[1][inner], values[2][inner] = ends
    return values
