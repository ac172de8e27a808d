r"""Images of the same landmark: a database ranked by its likeness to queries.

Every database image is ranked by the cosine of its descriptor and the query's. To a query, a
database image is easy, hard, junk or, without a grade, negative. Which of them count is said by
three variants (Radenović et al. 2018):

========  ============  ==================
variant   positive      ignored
========  ============  ==================
easy      easy          hard, junk
medium    easy, hard    junk
hard      hard          easy, junk
========  ============  ==================

Ignored images are taken out of the ranking before it is scored. A query without a positive does not
count in a variant.

References
----------
F. Radenović, A. Iscen, G. Tolias, Y. Avrithis, O. Chum: Revisiting Oxford and Paris: Large-Scale
Image Retrieval Benchmarking. CVPR 2018.
J. Philbin, O. Chum, M. Isard, J. Sivic, A. Zisserman: Object retrieval with large vocabularies and
fast spatial matching. CVPR 2007, whose average precision it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.text import plural

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Graded = Mapping[str, Places]
"""By grade (easy, hard, junk), which database images have it; no image has two."""

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "easy": ("easy",),
    "medium": ("easy", "hard"),
    "hard": ("hard",),
}
"""The positive grades of each variant; the others are ignored."""

GRADES = ("easy", "hard", "junk")


@dataclass(frozen=True)
class Scores:
    """What the queries that count in a variant score, each from 0 to 1."""

    queries: Places  # (query,): which of the queries count, ascending
    positives: Places  # (query,): their positives
    average_precision: Floats  # (query,)
    precision: Floats  # (query, rank): precision at each of the ranks asked for


def unit(features: NDArray[np.floating]) -> Floats:
    """Divide (image, channel) by the norm; a vector of zeros stays so, of cosine 0 to all."""
    values = np.array(features, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values).all(-1))
    if len(bad):
        raise AnalysisError(
            f"descriptors of {plural(len(bad), 'image')} of {len(values):,} with values that are "
            "not finite; extract the store again, in float32 where float16 overflows"
        )
    # The square of a large value would overflow.
    largest = np.abs(values).max(-1, keepdims=True, initial=0)
    np.divide(values, largest, out=values, where=largest > 0)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    np.divide(values, norms, out=values, where=norms > 0)
    return values


def similarities(
    queries: NDArray[np.floating], database: Iterable[NDArray[np.floating]], n_images: int
) -> NDArray[np.float32]:
    """Return the cosine of every query and database image, float32 (query, n_images).

    Products are summed in float64 and rounded to float32, so that equal descriptors give equal
    cosines wherever they stand in a block, and the database's order decides between them.
    Descriptors are (image, channel), of any length; blocks together are the database, in its order,
    and one at a time is held.
    """
    wanted = unit(queries)
    cosines = np.empty((len(wanted), n_images), dtype=np.float32)
    stop = 0
    for block in database:
        start, stop = stop, stop + len(block)
        if stop > n_images:
            break
        cosines[:, start:stop] = wanted @ unit(block).T
    if stop != n_images:
        raise AnalysisError(
            f"blocks of {stop:,} images of the database, which must have {n_images:,}"
        )
    return cosines


def ranking(similarity: NDArray[np.floating]) -> Places:
    """Return the places of database images, most similar first; equal ones in database order."""
    return np.argsort(-similarity, kind="stable")


def ranks(order: Places, positive: Places, ignored: Places) -> Places:
    """Return where positives stand in a ranking that ignored images were taken out of.

    ``order`` has all database images, best first; ranks are from 0, ascending.
    """
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    places = np.sort(place[positive])
    return places - np.searchsorted(np.sort(place[ignored]), places)


def average_precision(found: Places) -> float:
    r"""Area under the curve of precision over recall, by the trapezoidal rule.

    With the positives at the ranks :math:`r_0 < r_1 < \dots < r_{m-1}`, counted from 0,

    .. math::

        \mathrm{AP} = \frac1m \sum_{j=0}^{m-1} \frac12
        \left( \frac{j}{r_j} + \frac{j + 1}{r_j + 1} \right), \qquad
        \frac{j}{r_j} = 1 \text{ where } r_j = 0:

    recall rises by :math:`1 / m` at each positive, and the precision just before and just after it
    are averaged. It is at most the mean of the precisions just after the positives, which is called
    average precision elsewhere.

    `found` is (positive,), from :func:`ranks`, at least one.

    It is from 0 to 1; 1 where all positives stand before all negatives.
    """
    before = np.arange(len(found))
    # At rank 0 both are 0, and the precision counts as 1.
    precision_before = np.where(found > 0, before / np.maximum(found, 1), 1.0)
    precision_after = (before + 1) / (found + 1)
    return float((precision_before + precision_after).mean() / 2)


def precision_at(found: Places, rank: int) -> float:
    r"""Share of positives among the first images, at a rank that is at most the last positive's.

    With the last positive at place :math:`r` and :math:`k' = \min(r, k)`, both counted from 1: the
    positives among the first :math:`k'` images over :math:`k'`. A query with fewer than k positives
    can so reach 1.

    `found` is (positive,), from :func:`ranks`, at least one; `rank` is k, from 1.
    """
    depth = min(int(found[-1]) + 1, rank)
    return int((found < depth).sum()) / depth


def evaluate(
    similarity: Iterable[NDArray[np.floating]], graded: Sequence[Graded], at: Sequence[int]
) -> dict[str, Scores]:
    """Score the ranking of every query in all variants.

    ``similarity`` is (query, image), or the queries' rows one by one; ``at`` are ranks of
    precision, from 1.
    """
    rows: dict[str, list[tuple[int, Places]]] = {variant: [] for variant in VARIANTS}
    for query, (row, known) in enumerate(zip(similarity, graded, strict=True)):
        if np.isnan(row).any():
            raise AnalysisError("similarities that are no numbers cannot be ranked")
        order = ranking(row)
        for variant, grades in VARIANTS.items():
            positive = _of(known, grades)
            if len(positive):
                ignored = _of(known, [grade for grade in GRADES if grade not in grades])
                rows[variant].append((query, ranks(order, positive, ignored)))
    return {
        variant: Scores(
            queries=np.array([query for query, _ in counted], dtype=np.int64),
            positives=np.array([len(found) for _, found in counted], dtype=np.int64),
            average_precision=np.array([average_precision(found) for _, found in counted]),
            precision=np.array(
                [[precision_at(found, k) for k in at] for _, found in counted], dtype=np.float64
            ).reshape(len(counted), len(at)),
        )
        for variant, counted in rows.items()
    }


def _of(graded: Graded, grades: Sequence[str]) -> Places:
    return np.concatenate([graded[grade] for grade in grades])
