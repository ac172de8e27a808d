"""Intervals from half-samples: closed forms, and whether they cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vitfeat.analyses.similarity.half_samples import half_samples, interval, standard_error
from vitfeat.analyses.similarity.layers import Layer
from vitfeat.analyses.similarity.measures import measures
from vitfeat.errors import AnalysisError


@pytest.mark.parametrize("n", [8, 9, 101])
def test_halves_are_random_halves(n: int) -> None:
    halves = half_samples(n, 400, 5)
    assert halves.shape == (400, n)
    assert set(halves.sum(axis=1)) == {n // 2}
    share = halves.mean(axis=0)
    assert share.min() > 0.35
    assert share.max() < 0.65
    np.testing.assert_array_equal(halves, half_samples(n, 400, 5))
    assert (halves != half_samples(n, 400, 6)).any()


def test_few_resamples_are_refused() -> None:
    assert len(half_samples(10, 20, 0)) == 20
    with pytest.raises(AnalysisError, match=r"19 resamples .* 20 or more, or for 0"):
        half_samples(10, 19, 0)


@pytest.mark.parametrize("n", [40, 41])
def test_the_error_of_a_mean_is_the_textbook_one(n: int) -> None:
    values = np.random.default_rng(0).exponential(size=n)
    halves = half_samples(n, 20_000, 1)
    means = (halves @ values) / (n // 2)
    expected = values.std(ddof=1) / np.sqrt(n)
    assert standard_error(means, n) == pytest.approx(expected, rel=0.02)


def test_intervals_have_their_closed_form() -> None:
    z = stats.norm.ppf(0.95)
    low, high = interval(np.array([0.0, 0.6, -0.2]), np.array([0.1, 0.05, 0.3]), 0.9)
    assert high[0] == pytest.approx(np.tanh(z * 0.1))
    assert low[0] == pytest.approx(-high[0])
    assert low[1] == pytest.approx(np.tanh(np.arctanh(0.6) - z * 0.05 / 0.64))
    assert high[1] == pytest.approx(np.tanh(np.arctanh(0.6) + z * 0.05 / 0.64))
    assert low[2] == pytest.approx(np.tanh(np.arctanh(-0.2) - z * 0.3 / 0.96))
    # Small errors: as without the transformation.
    low, high = interval(np.array([0.6]), np.array([1e-5]), 0.9)
    assert high - low == pytest.approx(2 * z * 1e-5, rel=1e-4)
    # Near 1: within it, and longer downwards.
    low, high = interval(np.array([0.97]), np.array([0.02]), 0.95)
    assert high < 1
    assert 0.97 - low > 2 * (high - 0.97)


def test_an_interval_without_error_is_the_value() -> None:
    value = np.array([1.0, 1.0 + 1e-12, 0.3, np.nan])
    low, high = interval(value, np.array([0.0, 1e-9, 0.0, 0.1]), 0.95)
    for end in (low, high):
        np.testing.assert_array_equal(end, value)


DX, DY, SHARED = 12, 18, 6


def drawn(
    n: int, mix: np.ndarray, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Features of two models that share directions, Gaussian."""
    shared = rng.normal(size=(n, SHARED))
    x = shared @ mix[:, :DX] + 0.5 * rng.normal(size=(n, DX))
    y = shared @ mix[:, DX:] + noise * rng.normal(size=(n, DY))
    return x, y


def population_cka(mix: np.ndarray, noise: float) -> float:
    """Of linear kernels: squared norms of the covariance matrices, which are known."""
    a, b = mix[:, :DX], mix[:, DX:]
    xx, yy = a.T @ a + 0.25 * np.eye(DX), b.T @ b + noise**2 * np.eye(DY)
    return float((np.square(a.T @ b)).sum() / (np.linalg.norm(xx) * np.linalg.norm(yy)))


def population_rsa(mix: np.ndarray, noise: float, rng: np.random.Generator) -> float:
    """Spearman's correlation of the distances of many independent pairs."""
    first, second = drawn(400_000, mix, noise, rng), drawn(400_000, mix, noise, rng)
    distances = [np.square(a - b).sum(axis=1) for a, b in zip(first, second, strict=True)]
    return float(stats.spearmanr(*distances).statistic)


def layer(x: np.ndarray) -> Layer:
    mean = x.mean(axis=0)
    return Layer((x - mean) @ (x - mean).T, (x - mean) @ mean, float(mean @ mean))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.3, 4.0])
@pytest.mark.parametrize(("name", "trials"), [("cka", 800), ("rsa", 300), ("mutual_knn", 300)])
def test_intervals_cover_the_truth_as_often_as_they_say(
    name: str, trials: int, noise: float
) -> None:
    rng = np.random.default_rng(11)
    mix = rng.normal(size=(SHARED, DX + DY)) * np.array([3, 2, 1.5, 1, 1, 1])[:, None]
    measure = measures(neighbours=8)[name]
    n, confidence = 80, 0.9
    values, errors = np.empty(trials), np.empty(trials)
    for trial in range(trials):
        a, b = (measure.prepare(layer(x)) for x in drawn(n, mix, noise, rng))
        values[trial] = measure.compare(a, b)
        halves = half_samples(n, 100, trial)
        errors[trial] = standard_error(measure.resample([a], [b], halves)[:, 0, 0], n)
    # What the intervals are for: the population's value, but for neighbours the expected one of
    # so many images.
    truth = {
        "cka": lambda: population_cka(mix, noise),
        "rsa": lambda: population_rsa(mix, noise, rng),
        "mutual_knn": lambda: values.mean(),
    }[name]()
    assert abs(values.mean() - truth) < 0.25 * values.std()
    low, high = interval(values, errors, confidence)
    covered = float(np.mean((low <= truth) & (truth <= high)))
    # With so few images 2,000 trials gave 88 % for CKA, and 90 % from 200 images on; three standard
    # deviations of the trials around that. Those of neighbours are too wide rather than too narrow.
    slack = 3 * np.sqrt(0.88 * 0.12 / trials)
    assert 0.88 - slack <= covered <= (1 if name == "mutual_knn" else 0.9 + slack)
    if name != "mutual_knn":
        for missed in (truth < low, truth > high):
            assert 0.015 <= float(np.mean(missed)) <= 0.12


def test_near_zero_cka_intervals_are_too_wide_by_the_root_of_three() -> None:
    # There HSIC varies in its second order, of which halves have three times the variance.
    rng = np.random.default_rng(3)
    measure = measures()["cka"]
    values, errors = [], []
    for trial in range(200):
        a, b = (measure.prepare(layer(rng.normal(size=(80, d)))) for d in (10, 20))
        values.append(measure.compare(a, b))
        halves = half_samples(80, 100, trial)
        errors.append(standard_error(measure.resample([a], [b], halves)[:, 0, 0], 80))
    assert np.mean(errors) / np.std(values) == pytest.approx(3**0.5, rel=0.12)
