"""Linear centred kernel alignment (CKA) of every layer of one model with every layer of another.

Everything comes from two sets of Gram matrices. docs/analyses/cka.md has the definitions side by
side.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.numerics.gramfile import REMEDY
from vitfeat.numerics.grams import Grams, check_alike
from vitfeat.numerics.hsic import Floats, Terms, batch_sums, biased, unbiased

logger = logging.getLogger(__name__)

BatchOrder = Literal["shuffled", "stored"]
"""How images come to batches: drawn at random, or as they follow one another in the dataset."""

MIN_IMAGES = 4
"""The unbiased HSIC of n images divides by n (n - 3)."""

DEGENERATE = 1e-12
"""An HSIC(K, K) below this times the squared mean of K's diagonal is rounding error.

The ratio is about one over the number of directions in which features vary, so real features are
far above it; what float32 products leave of a matrix that should be zero is some 1e-14.
"""


@dataclass(frozen=True)
class Estimator:
    """A way to estimate CKA."""

    hsic: Callable[[Terms], Floats]  # how HSIC is estimated from the sums over a batch
    # Whether HSIC is averaged over batches, instead of taken once over all images.
    batched: bool = False
    scaled: bool = False  # whether each batch's raw Gram matrix is first divided by its range


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "debiased": Estimator(unbiased),
        "biased": Estimator(biased),
        "minibatch": Estimator(unbiased, batched=True),
        "paper": Estimator(unbiased, batched=True, scaled=True),
    }
)
"""The estimators by name; :func:`cka` says what each is."""


def cka(
    a: Grams,
    b: Grams,
    *,
    estimator: str = "debiased",
    batch_size: int = 256,
    batch_order: BatchOrder = "shuffled",
    seed: int = 0,
    max_bytes: int = 64 * 2**20,
) -> NDArray[np.float64]:
    r"""Linear CKA of every layer of a with every layer of b.

    .. math:: CKA(K, L) = \frac{HSIC(K, L)}{\sqrt{HSIC(K, K) \; HSIC(L, L)}}

    ``debiased``
        The unbiased HSIC of Song et al. 2012 over all images at once.
    ``biased``
        :math:`HSIC = tr(KHLH) / (n - 1)^2` (Kornblith et al. 2019): towards 1 for features of
        many more dimensions than images, whatever they are.
    ``minibatch``
        The three unbiased HSICs averaged over batches, then the ratio (Nguyen et al. 2021,
        eq. 2 and 3).
    ``paper``
        As ``minibatch``, each batch's raw Gram matrix divided by its range (maximum minus
        minimum, diagonal included) before: the published code of Walmer et al. 2023.

    Returns float64 (layer_a, layer_b), empty where a model was left out. At most 1; 0 or more for
    ``biased``, while the others may be slightly negative. NaN where a layer has no CKA because its
    HSIC with itself vanishes: its features are constant, or all images equally far from one
    another.

    Parameters
    ----------
    a, b
        Gram matrices of the same images and tokens, such as two files. The same object, or the
        same file, is read once.
    batch_size
        Images in a batch, at least 4; one batch of all images where there are fewer. A shorter
        last batch weighs like the others; with under 4 images it is dropped.
    batch_order
        ``shuffled``: batches are drawn at random without replacement, because stores are often
        sorted by class, and consecutive images make batches of one class each. ``stored``: of
        consecutive images all the same, as in the published code of Walmer et al. 2023.
    """
    if estimator not in ESTIMATORS:
        raise AnalysisError(
            f"no CKA estimator is called {estimator!r}: choose {', '.join(ESTIMATORS)}"
        )
    both = check_pair(a, b, "CKA")
    if a.n_images < MIN_IMAGES:
        raise AnalysisError(
            f"CKA needs at least {MIN_IMAGES} images, {a.where} has {a.n_images}: take more images"
        )
    if not both:
        return np.empty((len(a.layers), len(b.layers)))
    if a.where == b.where:
        b = a
    how = ESTIMATORS[estimator]
    n = a.n_images
    order = np.arange(n)
    if how.batched and batch_order == "shuffled":
        order = np.random.default_rng(seed).permutation(n)
    batches = _batches(order, batch_size) if how.batched else [order]
    sums = batch_sums(a, b, batches, max_bytes=max_bytes, ranges=how.scaled)
    scales_a = _scales(a, [batch.range_a for batch in sums]) if how.scaled else None
    scales_b = _scales(b, [batch.range_b for batch in sums]) if how.scaled else None
    cross = np.stack([how.hsic(batch.ab) for batch in sums])
    if scales_a is not None and scales_b is not None:
        cross /= scales_a[:, :, None] * scales_b[:, None, :]
    norm_a = _self_hsic(a, how, [batch.aa for batch in sums], scales_a)
    norm_b = norm_a if b is a else _self_hsic(b, how, [batch.bb for batch in sums], scales_b)
    values = cross.mean(axis=0) / np.sqrt(np.outer(norm_a, norm_b))
    return np.asarray(values, dtype=np.float64)


def check_pair(a: Grams, b: Grams, what: str) -> bool:
    """Return whether both models have these tokens; that there is no such `what` is logged."""
    check_alike(a, b, tokens=(a.meta.tokens, b.meta.tokens))
    absent = dict.fromkeys(grams.meta.model for grams in (a, b) if grams.left_out)
    if absent:
        logger.warning(
            f"no {what} of {a.meta.model} and {b.meta.model} ({a.meta.tokens}): no such tokens in "
            f"{' and '.join(absent)}"
        )
    return not absent


def _batches(order: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """Cut images into batches, each in ascending order."""
    n = len(order)
    batches = [np.sort(order[start : start + size]) for start in range(0, n, size)]
    if len(batches[-1]) < MIN_IMAGES:
        logger.warning(
            f"CKA leaves out {len(batches[-1])} of {n} images: a last batch of fewer than "
            f"{MIN_IMAGES} has no unbiased HSIC"
        )
        batches.pop()
    return batches


def _scales(grams: Grams, ranges: Sequence[Floats]) -> Floats:
    """Ranges of the raw Gram matrices, (batch, layer), none of them zero."""
    scales = np.stack(ranges)
    if not scales.all():
        batch, layer = np.argwhere(scales == 0)[0]
        raise AnalysisError(
            f"layer {grams.layers[layer]} of {grams.meta.model} is constant over batch {batch}, "
            "which the estimator 'paper' divides by its range: choose another estimator or a "
            "larger batch size"
        )
    return scales


def _self_hsic(
    grams: Grams, how: Estimator, terms: Sequence[Terms], scales: Floats | None
) -> Floats:
    """HSIC of each layer with itself, averaged over batches, (layer,); NaN where it vanishes."""
    hsic = np.stack([how.hsic(batch) for batch in terms])
    if not np.isfinite(hsic).all():
        raise AnalysisError(f"Gram file {grams.where} holds values that are not finite: {REMEDY}")
    vanishing = hsic.mean(axis=0) <= DEGENERATE * np.square(grams.diag.mean(axis=1))
    for index in np.flatnonzero(vanishing):
        logger.warning(
            f"no CKA for layer {grams.layers[index]} of {grams.meta.model} "
            f"({grams.meta.tokens}): its features do not tell the images apart"
        )
    if scales is not None:
        hsic /= np.square(scales)
    return np.where(vanishing, np.nan, hsic.mean(axis=0))
