r"""Confidence intervals over images from half-samples without replacement.

A bootstrap would draw images twice, and the product of an image with itself is what debiased
estimates leave out. A random half of the images has no such pairs, and a mean over half of them
varies around the mean over all exactly as a bootstrap's does (Shao & Wu 1989; Politis & Romano
1994). docs/analyses/similarity.md has the reasoning and what was measured.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError

Floats = NDArray[np.float64]
Halves = NDArray[np.bool_]

MIN_RESAMPLES = 20
"""Fewer give no deviation worth an interval: with 20 it is itself uncertain by a sixth."""


def half_samples(n: int, resamples: int, seed: int) -> Halves:
    """Draw random halves of n images.

    The same seed and n give the same halves, so that intervals of several pairs of models rest on
    the same images. Returns bool (resample, image), n // 2 true in each row.
    """
    if resamples < MIN_RESAMPLES:
        raise AnalysisError(
            f"intervals from {resamples} resamples of the images would be arbitrary: ask for "
            f"{MIN_RESAMPLES} or more, or for 0 to have no intervals"
        )
    rng = np.random.default_rng(seed)
    halves = np.zeros((resamples, n), dtype=np.bool_)
    for half in halves:
        half[rng.permutation(n)[: n // 2]] = True
    return halves


def standard_error(values: Floats, n: int) -> Floats:
    r"""Return the standard error of a statistic of n images from its values on halves.

    .. math:: \mathrm{se} = \sqrt{\frac{m}{n - m} \; \frac{1}{B - 1} \sum_b (t_b - \bar t)^2}

    with m = floor(n / 2) images in each of the B halves: the delete-d jackknife (Shao & Wu 1989).
    Deviations are from the mean over halves, so that a bias that depends on the number of images
    does not widen it.

    `values` are (resample, ...).
    """
    m = n // 2
    return np.asarray(np.sqrt(m / (n - m)) * values.std(axis=0, ddof=1))


def interval(value: Floats, error: Floats, confidence: float) -> tuple[Floats, Floats]:
    r"""Confidence interval of a similarity of at most 1, by Fisher's transformation.

    .. math:: \tanh\left(\operatorname{artanh} t \pm z \, \frac{\mathrm{se}}{1 - t^2}\right)

    with the normal quantile z. It stays within -1 and 1 and is wider on the side away from 1, as
    the distribution of a similarity near 1 is (Fisher 1915). Where the error is 0 both ends are
    the value.

    Returns lower and upper ends, of the shape of `value` and `error`.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = z * error / (1 - value**2)
        low, high = (np.tanh(np.arctanh(value) + sign * half) for sign in (-1, 1))
    fixed = (error == 0) | (value >= 1)
    return np.where(fixed, value, low), np.where(fixed, value, high)
