"""Classes of images by a linear classifier of their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.linear_probe.logistic import (
    MAX_ITERATIONS,
    Fit,
    Floats,
    Ints,
    Standard,
    fit_logistic,
    standard,
)
from vitfeat.errors import AnalysisError
from vitfeat.text import plural

# Of a block of test images with their logits.
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier, and how it was chosen."""

    fit: Fit
    standard: Standard
    penalty: float
    # Accuracy on the validation part by penalty; empty where there was nothing to choose.
    validation: dict[float, float]
    n_validation: int
    # Fits that had not converged, by penalty: of the choice, and under None the last one.
    unconverged: dict[float | None, Fit]

    def ranks(self, features: NDArray[np.float32], truth: Ints) -> Ints:
        """Rank the true classes of images; see :func:`class_ranks`."""
        return class_ranks(self.fit, self.standard, features, truth)


def probe(
    features: NDArray[np.float32],
    labels: Ints,
    n_classes: int,
    penalties: Sequence[float],
    *,
    validation: float = 0.2,
    seed: int = 0,
    max_iterations: int = MAX_ITERATIONS,
    threads: int = 1,
    device: str = "cpu",
) -> Probe:
    """Fit a linear classifier of (image, channel), its penalty chosen on a part of the images.

    That part is set aside by :func:`validation_part`; of each penalty a classifier is fitted to the
    others, standardised by their own means and deviations, and the one with the highest accuracy on
    the part is chosen, of equal ones the largest. Then all images are standardised anew and fitted
    with it. With a single penalty nothing is chosen and no part set aside. Labels are from 0 to
    ``n_classes`` - 1; :func:`vitfeat.analyses.linear_probe.logistic.fit_logistic` has the rest.
    """
    if n_classes < 2:
        raise AnalysisError(
            f"linear probe: training images of {n_classes or 'no'} class; it needs two or more"
        )
    if not penalties:
        raise AnalysisError("linear probe: no penalty to try; give one or more")

    def fitted(x: NDArray[np.float32], y: Ints, penalty: float, start: Fit | None) -> Fit:
        return fit_logistic(
            x,
            y,
            n_classes,
            penalty,
            start=start,
            max_iterations=max_iterations,
            threads=threads,
            device=device,
        )

    chosen, best = max(penalties), None
    accuracies: dict[float, float] = {}
    unconverged: dict[float | None, Fit] = {}
    n_validation = 0
    if len(penalties) > 1:
        aside = validation_part(labels, validation, seed)
        n_validation = int(aside.sum())
        fit_to = standard(kept := features[~aside])
        x, truth, last = fit_to(kept), labels[aside], None
        # A classifier is a good start for the next weaker penalty.
        for penalty in sorted(penalties, reverse=True):
            last = fitted(x, labels[~aside], penalty, last)
            if not last.converged:
                unconverged[penalty] = last
            hits = class_ranks(last, fit_to, features[aside], truth) == 0
            accuracies[penalty] = float(hits.mean())
            if best is None or accuracies[penalty] > accuracies[chosen]:
                chosen, best = penalty, last
    how = standard(features)
    final = fitted(how(features), labels, chosen, best)
    if not final.converged:
        unconverged[None] = final
    return Probe(final, how, chosen, accuracies, n_validation, unconverged)


def validation_part(labels: Ints, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose images to set aside, of every class the same share.

    Of a class with m images that is ``share`` times m, rounded, but at least one and at most m - 1;
    of a class with one image none. The choice depends on the labels and the seed alone.
    """
    generator = np.random.default_rng(seed)
    aside = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        aside[generator.permutation(own)[:count]] = True
    if not aside.any():
        raise AnalysisError(
            f"linear probe: {plural(len(labels), 'training image')}, one of each class: none can "
            "be set aside to choose the penalty on; take more images, or a single penalty"
        )
    return aside


def class_ranks(fit: Fit, how: Standard, features: NDArray[np.float32], truth: Ints) -> Ints:
    """Rank the true classes of images by logits; -1 where the classifier does not know the class.

    A rank is how many classes have a larger logit than the true one, or an equal one and a smaller
    number. Features are (image, channel), not standardised.
    """
    ranks = np.empty(len(truth), dtype=np.int64)
    n_classes, width = fit.weights.shape
    numbers = np.arange(n_classes)
    rows = max(1, _BLOCK_BYTES // (8 * (width + 3 * n_classes)))
    for start in range(0, len(truth), rows):
        some, own = truth[start : start + rows], slice(start, start + rows)
        logits: Floats = fit.logits(how(features[own]))
        if not np.isfinite(logits).all():
            raise AnalysisError(
                "linear probe: features of classified images are not finite; extract them again"
            )
        true = np.take_along_axis(logits, np.maximum(some, 0)[:, None], axis=1)
        earlier = (logits == true) & (numbers < some[:, None])
        ranks[own] = np.where(some < 0, -1, ((logits > true) | earlier).sum(axis=1))
    return ranks
