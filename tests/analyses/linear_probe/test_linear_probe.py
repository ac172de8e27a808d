"""The linear probe, against its objective in plain float64 and scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vitfeat.analyses.linear_probe import logistic
from vitfeat.analyses.linear_probe.compute import class_ranks, probe, validation_part
from vitfeat.analyses.linear_probe.logistic import Fit, Standard, fit_logistic, standard
from vitfeat.errors import AnalysisError

DEVICES = ["cpu", "cpu:0"]
"""The second is torch's."""


def drawn(n: int, n_classes: int, seed: int = 0, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes; channels of very different size, away from zero."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_classes, n)
    centres = np.random.default_rng(99).standard_normal((n_classes, width))
    x = centres[labels] + generator.standard_normal((n, width))
    return (x * 10.0 ** np.arange(-2, width - 2) + 30).astype(np.float32), labels


def objective(
    x: np.ndarray, labels: np.ndarray, weights: np.ndarray, bias: np.ndarray, penalty: float
) -> float:
    """As the documentation states it, image by image."""
    total = 0.0
    for features, label in zip(x.astype(np.float64), labels, strict=True):
        logits = [float(w @ features + b) for w, b in zip(weights, bias, strict=True)]
        top = max(logits)
        total -= logits[label] - top - math.log(sum(math.exp(v - top) for v in logits))
    return total / len(x) + penalty / 2 * float((weights**2).sum())


# --- The classifier ---


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("penalty", [0.001, 0.3])
def test_the_minimum_is_that_of_another_solver(penalty: float, device: str) -> None:
    """BFGS with finite differences knows nothing of our gradient."""
    x, labels = drawn(40, 3, width=2)
    z = standard(x)(x)
    fit = fit_logistic(z, labels, 3, penalty, device=device)

    def of(flat: np.ndarray) -> float:
        return objective(z, labels, flat[:6].reshape(3, 2), flat[6:], penalty)

    found = minimize(of, np.zeros(9), method="BFGS", options={"gtol": 1e-7})
    assert of(np.concatenate([fit.weights.reshape(-1), fit.bias])) <= found.fun + 1e-6
    assert fit.converged
    np.testing.assert_allclose(fit.weights, found.x[:6].reshape(3, 2), atol=0.05 * penalty**0.5)
    shares = [np.exp(v) / np.exp(v).sum() for v in (fit.bias, found.x[6:])]
    np.testing.assert_allclose(*shares, atol=0.01)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_classes", [2, 7])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_penalty_and_scikit_learns_c(n_classes: int, penalty: float, device: str) -> None:
    """C = 1 / (penalty times images): the documentation says so."""
    x, labels = drawn(300, n_classes)
    z = standard(x)(x)
    model = LogisticRegression(C=1 / (penalty * 300), tol=1e-10, max_iter=10000)
    if n_classes == 2:
        # Of two classes scikit-learn fits one vector, the difference: half the penalty of two.
        model.set_params(C=2 / (penalty * 300))
    model.fit(z.astype(np.float64), labels)
    fit = fit_logistic(z, labels, n_classes, penalty, device=device)
    weights, bias = fit.weights, fit.bias - fit.bias.mean()
    expected = model.coef_, model.intercept_ - model.intercept_.mean()
    if n_classes == 2:
        weights, bias = weights[1:] - weights[:1], fit.bias[1:] - fit.bias[:1]
        expected = model.coef_, model.intercept_
    np.testing.assert_allclose(weights, expected[0], atol=2e-3)
    np.testing.assert_allclose(bias, expected[1], atol=2e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_loss_and_gradient_in_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "_BLOCK_BYTES", 2000)
    monkeypatch.setattr(logistic, "_GPU_BLOCK_BYTES", 2000)
    x, labels = drawn(90, 4)
    generator = np.random.default_rng(0)
    weights, bias = generator.standard_normal((4, 5)), generator.standard_normal(4)
    z = standard(x)(x)
    with logistic._evaluator(z, labels, 4, 2, device) as evaluate:
        loss, by_weights, by_bias = evaluate(weights, bias)
    assert loss == pytest.approx(objective(z, labels, weights, bias, 0), rel=1e-12)
    step = 1e-6
    for c in range(4):
        for d in range(5):
            up, down = weights.copy(), weights.copy()
            up[c, d] += step
            down[c, d] -= step
            slope = objective(z, labels, up, bias, 0) - objective(z, labels, down, bias, 0)
            assert by_weights[c, d] == pytest.approx(slope / (2 * step), abs=1e-8)
        up, down = bias.copy(), bias.copy()
        up[c] += step
        down[c] -= step
        slope = objective(z, labels, weights, up, 0) - objective(z, labels, weights, down, 0)
        assert by_bias[c] == pytest.approx(slope / (2 * step), abs=1e-8)


def test_features_without_meaning_leave_the_shares_of_classes() -> None:
    labels = np.repeat([0, 1, 2], [5, 15, 30])
    fit = fit_logistic(np.zeros((50, 4), dtype=np.float32), labels, 3, 0.1)
    assert not fit.weights.any()
    np.testing.assert_allclose(
        np.exp(fit.bias) / np.exp(fit.bias).sum(), [0.1, 0.3, 0.6], atol=1e-4
    )


def test_threads_and_the_start() -> None:
    x, labels = drawn(200, 3)
    z = standard(x)(x)
    first = fit_logistic(z, labels, 3, 0.01)
    np.testing.assert_array_equal(
        first.weights, fit_logistic(z, labels, 3, 0.01, threads=3).weights
    )
    strong = fit_logistic(z, labels, 3, 1.0)
    again = fit_logistic(z, labels, 3, 0.01, start=strong)
    np.testing.assert_allclose(again.weights, first.weights, atol=5e-3)
    assert fit_logistic(z, labels, 3, 0.01, start=first).iterations == 0


def test_threads_change_no_bit_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "_BLOCK_BYTES", 2000)
    x, labels = drawn(200, 3)
    one, four = (fit_logistic(standard(x)(x), labels, 3, 0.01, threads=n) for n in (1, 4))
    np.testing.assert_array_equal(one.weights, four.weights)


@pytest.mark.parametrize("penalty", [0.0, -1.0, math.nan])
def test_a_penalty_must_be_above_zero(penalty: float) -> None:
    with pytest.raises(AnalysisError, match="above 0"):
        fit_logistic(np.zeros((2, 1), dtype=np.float32), np.array([0, 1]), 2, penalty)


# --- Standardising ---


def test_standardising_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "_BLOCK_BYTES", 1000)
    x, _ = drawn(77, 3)
    other, _ = drawn(20, 3, seed=5)
    how, scaler = standard(x), StandardScaler().fit(x.astype(np.float64))
    np.testing.assert_allclose(how.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(how.scale, scaler.scale_, rtol=1e-9)
    found = how(other)
    np.testing.assert_allclose(found, scaler.transform(other.astype(np.float64)), atol=1e-5)
    assert found.dtype == np.float32


def test_constant_channels_are_zero() -> None:
    x = np.full((3000, 2), 0.1, dtype=np.float32)
    x[:, 1] = 1e6 + np.arange(3000) % 2
    how = standard(x)
    assert how.scale.tolist() == [1.0, 0.5]
    np.testing.assert_allclose(how(x)[:, 0], 0, atol=1e-12)
    assert set(how(x)[:, 1].tolist()) == {-1.0, 1.0}


# --- The choice of the penalty ---


def test_every_class_gives_its_share() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([3, 5, 8, 9, 11], [50, 2, 1, 7, 12]))
    aside = validation_part(labels, 0.2, 0)
    counts = {label: int(aside[labels == label].sum()) for label in (3, 5, 8, 9, 11)}
    assert counts == {3: 10, 5: 1, 8: 0, 9: 1, 11: 2}
    np.testing.assert_array_equal(aside, validation_part(labels, 0.2, 0))
    assert (aside != validation_part(labels, 0.2, 1)).any()
    most = validation_part(labels, 0.99, 0)
    assert {label: int((~most)[labels == label].sum()) for label in (3, 5, 9)} == {3: 1, 5: 1, 9: 1}


PENALTIES = (0.001, 1.0, 0.1, 30.0)


def test_the_penalty_is_the_best_on_the_part() -> None:
    x, labels = drawn(150, 4, width=9)
    found = probe(x, labels, 4, PENALTIES, validation=0.3, seed=3)
    aside = validation_part(labels, 0.3, 3)
    n = int((~aside).sum())
    scaler = StandardScaler().fit(x[~aside].astype(np.float64))
    accuracies = {}
    for penalty in PENALTIES:
        model = LogisticRegression(C=1 / (penalty * n), tol=1e-8, max_iter=10000)
        model.fit(scaler.transform(x[~aside]), labels[~aside])
        accuracies[penalty] = model.score(scaler.transform(x[aside]), labels[aside])
    assert found.validation == pytest.approx(accuracies)
    assert len(set(accuracies.values())) > 1
    best = max(accuracies.values())
    assert found.penalty == max(p for p in PENALTIES if accuracies[p] == best)
    assert found.n_validation == int(aside.sum())
    # The last fit is of all images, standardised by all.
    whole = fit_logistic(standard(x)(x), labels, 4, found.penalty)
    np.testing.assert_allclose(found.fit.weights, whole.weights, atol=0.01)
    np.testing.assert_allclose(found.standard.mean, x.mean(axis=0, dtype=np.float64))
    assert found.unconverged == {}


def test_of_equal_penalties_the_largest_is_chosen() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    found = probe(x, np.repeat([0, 1, 2], 10), 3, (0.01, 0.1, 0.001))
    assert found.validation == {0.1: 1.0, 0.01: 1.0, 0.001: 1.0}
    assert found.penalty == 0.1


def test_with_one_penalty_nothing_is_set_aside() -> None:
    x, labels = drawn(60, 3)
    found = probe(x, labels, 3, (0.02,))
    assert (found.penalty, found.validation, found.n_validation) == (0.02, {}, 0)
    np.testing.assert_array_equal(
        found.fit.weights, fit_logistic(standard(x)(x), labels, 3, 0.02).weights
    )


def test_units_of_channels_do_not_matter() -> None:
    x, labels = drawn(200, 4)
    test, truth = drawn(80, 4, seed=1)
    plain = probe(x, labels, 4, PENALTIES).ranks(test, truth)
    # Powers of two round nothing.
    units = np.array([4, 0.5, 1024, 1, 0.125], dtype=np.float32)
    np.testing.assert_array_equal(
        probe(x * units, labels, 4, PENALTIES).ranks(test * units, truth), plain
    )


def test_inputs_are_not_changed() -> None:
    x, labels = drawn(60, 3)
    kept = x.copy(), labels.copy()
    probe(x, labels, 3, PENALTIES).ranks(x, labels)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(labels, kept[1])


def test_fits_that_do_not_converge_are_told() -> None:
    x, labels = drawn(100, 3)
    found = probe(x, labels, 3, (1e-4, 1e-3), max_iterations=2)
    assert set(found.unconverged) == {1e-4, 1e-3, None}
    assert all(fit.iterations == 2 for fit in found.unconverged.values())
    assert all(fit.gradient > logistic.TOLERANCE for fit in found.unconverged.values())


# --- Ranks ---


def test_ranks_are_those_of_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitfeat.analyses.linear_probe.compute._BLOCK_BYTES", 1000)
    generator = np.random.default_rng(0)
    # Whole numbers, so that logits are equal often.
    weights, bias = generator.integers(-1, 2, (6, 3)), generator.integers(-1, 2, 6)
    fit = Fit(weights.astype(np.float64), bias.astype(np.float64), 0, 0.0)
    x = generator.integers(-1, 2, (200, 3))
    truth = generator.integers(-1, 6, 200)
    how = Standard(np.full(3, 2.0), np.full(3, 0.5))
    found = class_ranks(fit, how, (0.5 * x + 2).astype(np.float32), truth)
    for row, label, rank in zip(x, truth, found, strict=True):
        logits = [int(w @ row + b) for w, b in zip(weights, bias, strict=True)]
        order = sorted(range(6), key=lambda c, logits=logits: (-logits[c], c))
        assert rank == (order.index(label) if label >= 0 else -1)


def test_classes_apart_are_told_apart() -> None:
    x = np.repeat(np.eye(6, dtype=np.float32), 10, axis=0)
    labels = np.repeat(np.arange(6), 10)
    assert (probe(x, labels, 6, (0.01, 0.1)).ranks(x, labels) == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_classes": 1, "labels": np.zeros(9, dtype=np.int64)}, "of 1 class; it needs two"),
        ({"penalties": ()}, "no penalty to try"),
        ({"penalties": (0.1, -1.0)}, "penalty -1.0; it must be above 0"),
        ({"labels": np.arange(9), "n_classes": 9}, "9 training images, one of each class"),
        ({"features": np.full((9, 2), np.inf, dtype=np.float32)}, "not finite"),
        ({"features": np.full((9, 2), np.nan, dtype=np.float32)}, "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {
        "features": np.arange(18, dtype=np.float32).reshape(9, 2),
        "labels": np.arange(9) % 3,
        "n_classes": 3,
        "penalties": (0.1, 1.0),
    }
    with pytest.raises(AnalysisError, match=words):
        probe(**(given | change))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_test_images_that_are_not_finite(value: float) -> None:
    x, labels = drawn(60, 3)
    found = probe(x, labels, 3, (0.1,))
    x[50, 2] = value
    with pytest.raises(AnalysisError, match="classified images are not finite"):
        found.ranks(x, labels)
