from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from vitfeat.analyses.attention.norms import PARAMETER, high_norm, thresholds, token_norms
from vitfeat.errors import AnalysisError


@pytest.fixture
def norms() -> np.ndarray:
    """Norms of 3 images of 5 x 7 tokens, in the second two tokens of ten times the norm."""
    values = np.random.default_rng(6).normal(40, 4, size=(3, 5, 7))
    values[1, 0, 3] *= 10
    values[1, 4, 6] *= 10
    return values


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_norms_by_hand(dtype: type) -> None:
    features = np.array([[[3, 4, 0], [0, 0, 0]], [[1, 2, 2], [-6, 0, 8]]], dtype=dtype)
    kept = features.copy()
    found = token_norms(features)
    assert found.dtype == np.float64
    assert found.tolist() == [[5, 0], [3, 10]]
    np.testing.assert_array_equal(features, kept)


def test_float16_does_not_overflow() -> None:
    """300 squared is beyond float16, and so is the norm of a thousand of them in float16 sums."""
    features = np.full((2, 1000), 300, dtype=np.float16)
    np.testing.assert_allclose(token_norms(features), 300 * math.sqrt(1000), rtol=1e-15)


def threshold(image: np.ndarray, rule: str, k: float) -> float:
    median = statistics.median(image.ravel().tolist())
    if rule == "absolute":
        return k
    if rule == "median":
        return k * median
    spread = statistics.median(abs(n - median) for n in image.ravel().tolist())
    return median + k * spread * 1.4826022185


@pytest.mark.parametrize("rule", PARAMETER)
def test_from_the_definitions(norms: np.ndarray, rule: str) -> None:
    kept = norms.copy()
    found, share = thresholds(norms, rule), high_norm(norms, rule)
    np.testing.assert_array_equal(norms, kept)
    for image, values in enumerate(norms):
        limit = threshold(values, rule, {"absolute": 150, "median": 3, "mad": 10}[rule])
        assert found[image] == pytest.approx(limit, rel=1e-9)
        assert share[image] == sum(n > limit for n in values.ravel()) / 35


@pytest.mark.parametrize("rule", PARAMETER)
def test_artefacts_are_found(norms: np.ndarray, rule: str) -> None:
    assert high_norm(norms, rule).tolist() == [0, 2 / 35, 0]


def test_the_threshold_of_darcet_et_al() -> None:
    """Higher than 150, not 150 itself."""
    assert high_norm(np.array([[149.0, 150.0, np.nextafter(150, 200), 500.0]]), "absolute") == 0.5


@pytest.mark.parametrize("rule", ["median", "mad"])
def test_free_of_scale(norms: np.ndarray, rule: str) -> None:
    np.testing.assert_array_equal(high_norm(norms / 64, rule), high_norm(norms, rule))
    assert high_norm(norms / 64, "absolute").tolist() == [0, 0, 0]


def test_mad_is_in_deviations_of_normal_norms() -> None:
    values = np.random.default_rng(8).normal(50, 3, size=(400, 500))
    assert thresholds(values, "mad") == pytest.approx(50 + 10 * 3, rel=2e-3)


def test_any_leading_dimensions(norms: np.ndarray) -> None:
    found = high_norm(norms[:, None].repeat(2, axis=1), "median")
    np.testing.assert_array_equal(found, high_norm(norms, "median")[:, None].repeat(2, axis=1))


def test_features_that_have_no_norm() -> None:
    with pytest.raises(AnalysisError, match="not finite"):
        token_norms(np.array([[1, np.inf]], dtype=np.float16))
