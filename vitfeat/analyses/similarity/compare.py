"""Similarity of the layers of two models by several measures, with confidence intervals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.rows import SimilarityRow
from vitfeat.analyses.similarity.half_samples import Halves, half_samples, interval, standard_error
from vitfeat.analyses.similarity.layers import Floats, Layer, layer_of
from vitfeat.analyses.similarity.measures import NAMES, Measure, measures
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gramfile import REMEDY, GramFile

logger = logging.getLogger(__name__)

Images = NDArray[np.intp] | None

LAYERS = ("last", "all")


class _Values(NamedTuple):
    """Similarity and both ends of its interval, (layer_a, layer_b) each."""

    value: Floats
    low: Floats
    high: Floats


def similarity(
    a: GramFile,
    b: GramFile,
    *,
    names: Sequence[str] = NAMES,
    layers: str = "last",
    neighbours: int = 10,
    variance: float = 0.99,
    images: Images = None,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[SimilarityRow]:
    """Compare layers of two models.

    Parameters
    ----------
    a, b
        Files of the same images and tokens. The same path is read once.
    names
        Measures, out of :data:`vitfeat.analyses.similarity.measures.NAMES`.
    layers
        ``last``, or ``all`` with all.
    neighbours, variance
        As in :func:`vitfeat.analyses.similarity.measures.measures`.
    images
        Places of those that are compared, ascending; None is all.
    resamples
        Halves of the images that intervals come from; 0 gives none.
    confidence
        Of the intervals, between 0 and 1.
    seed
        Of the halves.

    Returns
    -------
    list
        Measure by measure, in the order of `names`; none where a model was left out. Values are
        NaN where a measure does not exist, ends of intervals also where there is no interval.

    Raises
    ------
    AnalysisError
        An unknown measure or choice of layers, unlike files, too few images or resamples, or Gram
        matrices that are not finite.
    """
    known = measures(neighbours, variance)
    for name in names:
        if name not in known:
            raise AnalysisError(f"no measure is called {name!r}: choose {', '.join(known)}")
    if layers not in LAYERS:
        raise AnalysisError(f"layers {layers!r} cannot be compared: choose {' or '.join(LAYERS)}")
    _check_alike(a, b)
    if absent := [file.meta.model for file in (a, b) if file.left_out]:
        logger.warning(
            f"no similarity of {a.meta.model} and {b.meta.model} ({a.meta.tokens}): no such tokens "
            f"in {' and '.join(dict.fromkeys(absent))}"
        )
        return []
    n = a.n_images if images is None else len(images)
    for name in names:
        _check_images(name, known[name], n, a.where, resamples)
    halves = half_samples(n, resamples, seed) if resamples else None
    places = [range(len(file.layers))[-1 if layers == "last" else 0 :] for file in (a, b)]
    found: dict[str, _Values] = {}
    # What layers cost once is shared by the measures that need the same, and dropped after them.
    for prepare in dict.fromkeys(known[name].prepare for name in names):
        sharing = [name for name in names if known[name].prepare is prepare]
        side_a = _prepared(a, places[0], images, prepare, sharing)
        side_b = side_a
        if a.path != b.path:
            side_b = _prepared(b, places[1], images, prepare, sharing)
        for name in sharing:
            found[name] = _compare(known[name], side_a, side_b, halves, confidence)
            missing = sum(
                int(np.isnan(found[name].value[i, j]))
                for i, left in enumerate(side_a)
                for j, right in enumerate(side_b)
                if left is not None and right is not None
            )
            if missing:
                logger.warning(
                    f"no {name} for {missing} of {found[name].value.size} pairs of layers of "
                    f"{a.meta.model} and {b.meta.model} ({a.meta.tokens}): {known[name].saturated}"
                )
    return [
        row
        for name in names
        for row in _rows(a, b, places, name, known[name], found[name], n, confidence)
    ]


def _check_alike(a: GramFile, b: GramFile) -> None:
    for what, mine, theirs in (
        ("images", a.meta.image_fingerprint, b.meta.image_fingerprint),
        ("numbers of images", a.n_images, b.n_images),
        ("tokens", a.meta.tokens, b.meta.tokens),
    ):
        if mine != theirs:
            raise AnalysisError(
                f"{a.where} and {b.where} are of different {what} ({mine} and {theirs}) and cannot "
                "be compared: compute both anew from the same images and tokens"
            )


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
    images: Images,
    prepare: Callable[[Layer], Any],
    sharing: Sequence[str],
) -> list[Any]:
    found = []
    for place in places:
        layer = layer_of(file.gram(place), images)
        if not np.isfinite(layer.centred).all():
            raise AnalysisError(
                f"Gram file {file.where} holds values that are not finite: {REMEDY}"
            )
        found.append(prepare(layer))
        if found[-1] is None:
            logger.warning(
                f"no {' and no '.join(sharing)} for layer {file.layers[place]} of "
                f"{file.meta.model} ({file.meta.tokens}): its features do not tell the images apart"
            )
    return found


def _compare(
    measure: Measure[Any],
    side_a: Sequence[Any],
    side_b: Sequence[Any],
    halves: Halves | None,
    confidence: float,
) -> _Values:
    """Compare all layers of a side with all of the other; None among them gives NaN."""
    shape = len(side_a), len(side_b)
    value, low, high = (np.full(shape, np.nan) for _ in range(3))
    rows, columns = (
        [i for i, layer in enumerate(side) if layer is not None] for side in (side_a, side_b)
    )
    for i in rows:
        for j in columns:
            value[i, j] = measure.compare(side_a[i], side_b[j])
    if halves is not None and measure.resample is not None and rows and columns:
        left = [side_a[i] for i in rows]
        right = left if side_b is side_a else [side_b[j] for j in columns]
        inner = np.ix_(rows, columns)
        error = standard_error(measure.resample(left, right, halves), halves.shape[1])
        low[inner], high[inner] = interval(value[inner], error, confidence)
    return _Values(value, low, high)


def _rows(
    a: GramFile,
    b: GramFile,
    places: Sequence[Sequence[int]],
    name: str,
    measure: Measure[Any],
    found: _Values,
    n: int,
    confidence: float,
) -> Iterator[SimilarityRow]:
    for i, place_a in enumerate(places[0]):
        for j, place_b in enumerate(places[1]):
            yield SimilarityRow(
                model_a=a.meta.model,
                layer_a=a.layers[place_a],
                model_b=b.meta.model,
                layer_b=b.layers[place_b],
                measure=name,
                setting=measure.setting,
                tokens=a.meta.tokens,
                made_from_a=a.meta.made_from,
                made_from_b=b.meta.made_from,
                n_images=n,
                value=float(found.value[i, j]),
                low=float(found.low[i, j]),
                high=float(found.high[i, j]),
                confidence=confidence,
            )
