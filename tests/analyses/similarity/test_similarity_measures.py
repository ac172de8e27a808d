"""Measures of similarity against brute force from features, invariances and degenerate cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.analyses.similarity import reference_similarity as reference
from vitfeat.analyses.similarity.half_samples import half_samples
from vitfeat.analyses.similarity.layers import Layer, layer_of
from vitfeat.analyses.similarity.measures import NAMES, measures
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gram import gram

Features = Callable[..., np.ndarray]

K, VARIANCE = 7, 0.9
REFERENCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "cka": reference.cka,
    "procrustes": reference.procrustes,
    "rsa": reference.rsa,
    "mutual_knn": lambda x, y: reference.mutual_knn(x, y, K),
    "svcca": lambda x, y: reference.svcca(x, y, VARIANCE),
}
# Of features of another scale in float32: what rounding of the kept matrices may do.
TOLERANCE = {"cka": 2e-6, "procrustes": 2e-5, "rsa": 1e-5, "mutual_knn": 1e-12, "svcca": 2e-4}


def layer(x: np.ndarray, images: np.ndarray | None = None) -> Layer:
    return layer_of(gram(lambda a, b: x[a:b], len(x)), images)


def value(name: str, x: np.ndarray, y: np.ndarray) -> float:
    measure = measures(K, VARIANCE)[name]
    a, b = (measure.prepare(layer(z)) for z in (x, y))
    assert a is not None
    assert b is not None
    return measure.compare(a, b)


def test_the_measures_come_in_order() -> None:
    assert tuple(measures()) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "dx", "dy"), [(60, 5, 9), (40, 70, 12), (31, 40, 300)])
def test_values_are_those_of_brute_force(
    name: str, n: int, dx: int, dy: int, features: Features
) -> None:
    x, y = features(n, dx), 100 * features(n, dy, noise=0.3)
    if name == "svcca" and dx + dy > 300:
        y = features(n, dy, noise=0.01)  # so that few directions hold the variance
    expected = REFERENCES[name](x, y)
    assert 0.05 < expected < 0.999
    assert value(name, x, y) == pytest.approx(expected, abs=TOLERANCE[name])
    assert value(name, y, x) == pytest.approx(expected, abs=TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
def test_large_constant_channels_do_not_drown_the_rest(name: str, features: Features) -> None:
    x, y = features(50, 30), features(50, 20)
    x[:, 3] += 300
    assert value(name, x, y) == pytest.approx(REFERENCES[name](x, y), abs=10 * TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
def test_rotation_and_scale_change_nothing(
    name: str, features: Features, rng: np.random.Generator
) -> None:
    x, y = features(50, 12).astype(np.float64), features(50, 9)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    turned = (37.5 * x @ rotation).astype(np.float32)
    assert value(name, turned, y) == pytest.approx(value(name, x, y), abs=TOLERANCE[name])
    assert value(name, turned, x) == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_matters_to_neighbours_alone(
    name: str, features: Features, rng: np.random.Generator
) -> None:
    x, y = features(50, 12), features(50, 9)
    shifted = x + 2 * rng.normal(size=12).astype(np.float32)
    difference = abs(value(name, shifted, y) - value(name, x, y))
    if name == "mutual_knn":
        assert difference > 1e-3
        assert value(name, shifted, y) == pytest.approx(REFERENCES[name](shifted, y), abs=1e-12)
    else:
        assert difference < TOLERANCE[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_and_features_does_not_matter(
    name: str, features: Features, rng: np.random.Generator
) -> None:
    x, y = features(50, 12), features(50, 9)
    images, channels = rng.permutation(50), rng.permutation(12)
    changed = value(name, x[images][:, channels], y[images])
    assert changed == pytest.approx(value(name, x, y), abs=TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_features_give_one(name: str, features: Features) -> None:
    x = features(50, 12)
    assert value(name, x, x) == pytest.approx(1, abs=1e-9)
    assert value(name, x, x) <= 1 + 1e-12


def test_unrelated_features_give_chance(rng: np.random.Generator) -> None:
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    n, dx, dy = 200, 12, 30
    for _ in range(20):
        x, y = (rng.normal(size=(n, d)).astype(np.float32) for d in (dx, dy))
        for name, values in found.items():
            values.append(value(name, x, y))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert mean["cka"] == pytest.approx(0, abs=0.01)
    assert mean["rsa"] == pytest.approx(0, abs=0.02)
    assert mean["mutual_knn"] == pytest.approx(K / (n - 1), abs=0.003)


def test_canonical_correlations_of_unrelated_features_have_the_documented_size(
    rng: np.random.Generator,
) -> None:
    # Mean of their squares: max(r_a, r_b) / (n - 1). All variance: r are the numbers of channels.
    n, squares = 100, []
    measure = measures(variance=1.0)["svcca"]
    for _ in range(100):
        # With one direction on one side there is one correlation, whose square is known.
        x, y = rng.normal(size=(n, 1)).astype(np.float32), rng.normal(size=(n, 24))
        prepared = [measure.prepare(layer(z.astype(np.float32))) for z in (x, y)]
        squares.append(measure.compare(*prepared) ** 2)
    assert np.mean(squares) == pytest.approx(24 / 99, abs=0.02)


def test_equal_distances_share_their_rank(rng: np.random.Generator) -> None:
    # Whole numbers: many equal distances, and exact ones.
    x, y = rng.integers(0, 3, (40, 4)), rng.integers(0, 3, (40, 4))
    y[:, :2] = x[:, :2]
    x, y = x.astype(np.float32), y.astype(np.float32)
    # The mean is no whole number, but these Gram matrices need no rounding.
    whole = [Layer(z @ z.T, np.zeros(40), 0.0) for z in (x.astype(float), y.astype(float))]
    measure = measures()["rsa"]
    a, b = (measure.prepare(one) for one in whole)
    assert a.tied
    assert measure.compare(a, b) == pytest.approx(reference.rsa(x, y), abs=1e-12)
    halves = half_samples(40, 20, 0)
    found = measure.resample([a], [b], halves)[:, 0, 0]
    for half, got in zip(halves, found, strict=True):
        assert got == pytest.approx(reference.rsa(x[half], y[half]), abs=1e-12)


def test_of_equally_near_images_the_earlier_is_nearer() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, -1.0]], dtype=np.float32)
    prepared = measures(neighbours=2)["mutual_knn"].prepare(Layer(x @ x.T, np.zeros(5), 0.0))
    # To the first image all others are at right angles.
    assert prepared.order[0].tolist() == [1, 2, 3, 4]
    assert prepared.order[2].tolist() == [1, 3, 0, 4]


def test_features_of_norm_zero_are_at_right_angles_to_all() -> None:
    x = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [1.0, 0.9]])
    prepared = measures(neighbours=1)["mutual_knn"].prepare(Layer(x @ x.T, np.zeros(4), 0.0))
    assert prepared.order[1].tolist() == [3, 0, 2]


CONSTANT = np.full((12, 5), 3.3, dtype=np.float32)
EQUALLY_FAR = np.eye(12, dtype=np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_constant_features_have_no_similarity(name: str) -> None:
    assert measures(3)[name].prepare(layer(CONSTANT)) is None
    # Also where the constant is large and what is left is rounding.
    nearly = 1000 + 1e-7 * np.random.default_rng(0).normal(size=(12, 5))
    centred = nearly - nearly.mean(axis=0)
    mean = nearly.mean(axis=0)
    one = Layer(centred @ centred.T, centred @ mean, float(mean @ mean))
    assert measures(3)[name].prepare(one) is None


@pytest.mark.parametrize(
    ("name", "exists"), [("cka", False), ("rsa", False), ("procrustes", True), ("mutual_knn", True)]
)
def test_images_equally_far_from_one_another(name: str, exists: bool) -> None:
    assert (measures(3)[name].prepare(layer(EQUALLY_FAR)) is not None) == exists


def test_more_directions_than_images_can_tell_apart_have_no_svcca(
    rng: np.random.Generator,
) -> None:
    x, y, z = (rng.normal(size=(30, d)).astype(np.float32) for d in (14, 15, 16))
    measure = measures(variance=1.0)["svcca"]
    a, b, c = (measure.prepare(layer(one)) for one in (x, y, z))
    # 14 + 15 = 29 = n - 1 directions fit beside one another, 30 do not.
    assert measure.compare(a, b) == pytest.approx(reference.svcca(x, y, 1.0), abs=1e-5)
    assert np.isnan(measure.compare(a, c))


def test_a_spectrum_has_no_more_directions_than_channels(features: Features) -> None:
    x = features(50, 8)
    found = measures()["procrustes"].prepare(layer(x))
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    singular = np.linalg.svd(centred, compute_uv=False)
    assert len(found.values) == 8
    np.testing.assert_allclose(np.sqrt(found.values), singular, rtol=1e-5)


def test_too_few_images_for_the_neighbours(features: Features) -> None:
    measure = measures(neighbours=12)["mutual_knn"]
    with pytest.raises(AnalysisError, match="12 neighbours of every image, and there are 11"):
        measure.prepare(layer(features(12, 3)))
    assert measures(neighbours=11)["mutual_knn"].prepare(layer(features(12, 3))) is not None


def test_some_images_are_centred_anew(features: Features) -> None:
    x = features(40, 6) + np.float32(5)
    images = np.array([0, 3, 4, 11, 17, 30, 39])
    some, direct = layer(x, images), layer(x[images])
    part = x[images].astype(np.float64)
    mean = part.mean(axis=0)
    for one in (some, direct):
        np.testing.assert_allclose(one.centred, (part - mean) @ (part - mean).T, atol=1e-4)
        np.testing.assert_allclose(one.offset, (part - mean) @ mean, atol=1e-4)
        assert one.level == pytest.approx(mean @ mean, rel=1e-5)
        np.testing.assert_allclose(one.raw, part @ part.T, rtol=1e-5, atol=1e-4)


def on_half(name: str, x: np.ndarray, y: np.ndarray, n: int) -> float:
    if name != "mutual_knn":
        return REFERENCES[name](x, y)
    return reference.mutual_knn(x, y, max(1, round(K * (len(x) - 1) / (n - 1))))


@pytest.mark.parametrize("n", [40, 41])
@pytest.mark.parametrize("name", ["cka", "rsa", "mutual_knn"])
def test_resamples_are_the_measure_on_halves(name: str, n: int, features: Features) -> None:
    left, right = [features(n, 6), features(n, 50)], [features(n, 9), features(n, 4)]
    measure: Any = measures(K)[name]
    halves = half_samples(n, 20, 3)
    a, b = ([measure.prepare(layer(x)) for x in side] for side in (left, right))
    for side, features_b in ((b, right), (a, left)):
        found = measure.resample(a, side, halves)
        assert found.shape == (20, 2, 2)
        for index, half in enumerate(halves):
            for i, x in enumerate(left):
                for j, y in enumerate(features_b):
                    expected = on_half(name, x[half], y[half], n)
                    assert found[index, i, j] == pytest.approx(expected, abs=1e-5)


def test_neighbours_far_down_the_list_are_found() -> None:
    # All that are near to the images of one half are in the other: the short cut does not do.
    n = 160
    x = np.concatenate([np.ones(n // 2), -np.ones(n // 2)])[:, None] * np.ones(2)
    x += 0.1 * np.random.default_rng(0).normal(size=x.shape)
    half = np.arange(n) % (n // 2) == 0
    half[np.arange(n // 2, n)] = True
    half[n // 2] = False
    half[n - 1] = False
    measure: Any = measures(neighbours=2)["mutual_knn"]
    a = measure.prepare(layer(x.astype(np.float32)))
    found = measure.resample([a], [a], half[None])
    assert found[0, 0, 0] == 1
