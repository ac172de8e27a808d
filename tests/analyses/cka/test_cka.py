from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.analyses.cka import reference_cka as reference
from vitfeat.analyses.cka.compute import ESTIMATORS, cka
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gram import add
from vitfeat.numerics.gramfile import GramFile, write_gram_file, write_left_out

Make = Callable[..., GramFile]
Draw = Callable[..., np.ndarray]


def batches(n: int, size: int, seed: int) -> list[np.ndarray]:
    order = np.random.default_rng(seed).permutation(n)
    parts = [order[start : start + size] for start in range(0, n, size)]
    return [part for part in parts if len(part) >= 4]


def truth(name: str, x: np.ndarray, y: np.ndarray, size: int = 256, seed: int = 0) -> float:
    if name in ("debiased", "biased"):
        return reference.cka(x, y, reference.hsic1 if name == "debiased" else reference.hsic0)
    return reference.minibatch(x, y, batches(len(x), size, seed), scale=name == "paper")


def test_the_reference_is_the_u_statistic(rng: np.random.Generator) -> None:
    k, l = (reference.raw_gram(rng.normal(size=(7, 3)) + 1) for _ in range(2))  # noqa: E741
    assert reference.hsic1(k, l) == pytest.approx(reference.hsic1_loops(k, l), rel=1e-12)


@pytest.mark.parametrize("max_bytes", [1, 2**26])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_matches_brute_force(
    make_file: Make, features: Draw, name: str, dtype: type, max_bytes: int
) -> None:
    # 50 images in batches of 13: the last one is of 11, and weighs like the others.
    a = [features(50, d).astype(dtype) for d in (20, 4, 300)]
    b = [features(50, d).astype(dtype) for d in (7, 150)]
    options = {"estimator": name, "batch_size": 13, "seed": 3, "max_bytes": max_bytes}
    found = cka(make_file(a), make_file(b), **options)
    expected = [[truth(name, x, y, 13, 3) for y in b] for x in a]
    assert found.shape == (3, 2)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_self_similarity(make_file: Make, features: Draw, name: str) -> None:
    file = make_file([features(60, d) for d in (9, 30, 200)])
    found = cka(file, file, estimator=name, batch_size=20)
    np.testing.assert_allclose(np.diag(found), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-12)
    # A file opened twice, and a copy of it under another name, change nothing.
    np.testing.assert_array_equal(
        found, cka(file, GramFile(file.path), estimator=name, batch_size=20)
    )
    copy = file.path.with_name("copy")
    copy.write_bytes(file.path.read_bytes())
    np.testing.assert_allclose(
        found, cka(file, GramFile(copy), estimator=name, batch_size=20), rtol=0, atol=1e-12
    )


def test_a_self_pair_is_read_once(
    make_file: Make, features: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, rows = make_file([features(20, 5)]), []
    read = GramFile.block

    def block(self: GramFile, start: int, stop: int) -> np.ndarray:
        rows.extend(range(start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(GramFile, "block", block)
    cka(file, file, max_bytes=2000)
    assert rows == list(range(20))


@pytest.mark.parametrize("name", ["minibatch", "paper"])
def test_batches_of_consecutive_images_as_in_the_paper_s_code(
    make_file: Make, rng: np.random.Generator, name: str
) -> None:
    """Of images sorted by class, batches of one class do not see what tells classes apart."""
    classes = np.repeat(rng.normal(size=(5, 6)) * 10, 8, axis=0)
    x, y = (classes + rng.normal(size=(40, 6)) for _ in range(2))
    a, b = make_file([x]), make_file([y])
    found = cka(a, b, estimator=name, batch_size=8, batch_order="stored", seed=5)[0, 0]
    consecutive = [np.arange(start, start + 8) for start in range(0, 40, 8)]
    expected = reference.minibatch(x, y, consecutive, scale=name == "paper")
    assert found == pytest.approx(expected, abs=2e-6)
    assert cka(a, b, estimator=name, batch_size=8)[0, 0] > 0.9
    assert abs(found) < 0.5


@pytest.mark.parametrize("name", ["debiased", "biased", "minibatch"])
def test_invariances(make_file: Make, features: Draw, rng: np.random.Generator, name: str) -> None:
    x, y = features(40, 30), features(40, 50)
    rotation = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    changed = [x @ rotation, 1e-3 * x, x + 10 * rng.normal(size=30)]
    files = make_file([x, *(part.astype(np.float32) for part in changed)]), make_file([y])
    found = cka(*files, estimator=name, batch_size=16)
    np.testing.assert_allclose(found, found[0, 0], rtol=0, atol=2e-6)


def test_paper_is_invariant_except_for_the_mean(make_file: Make, features: Draw) -> None:
    # Each batch is weighted by its range, and the range of a raw Gram matrix knows the mean.
    x, y = features(40, 30), features(40, 50)
    files = make_file([x, 1e-3 * x, x + 10]), make_file([y])
    found = cka(*files, estimator="paper", batch_size=16)
    assert found[1, 0] == pytest.approx(found[0, 0], abs=2e-6)
    assert abs(found[2, 0] - found[0, 0]) > 1e-4


@pytest.mark.parametrize("name", ["minibatch", "paper"])
@pytest.mark.parametrize("size", [40, 1000])
def test_one_batch_is_debiased(make_file: Make, features: Draw, name: str, size: int) -> None:
    a, b = make_file([features(40, 9), features(40, 3)]), make_file([features(40, 80)])
    np.testing.assert_allclose(
        cka(a, b, estimator=name, batch_size=size), cka(a, b), rtol=0, atol=1e-12
    )


def test_independent_features_of_many_dimensions(make_file: Make, rng: np.random.Generator) -> None:
    a, b = (make_file([rng.normal(size=(100, 3000)).astype(np.float32)]) for _ in range(2))
    assert abs(cka(a, b)[0, 0]) < 0.05
    assert abs(cka(a, b, estimator="minibatch", batch_size=25)[0, 0]) < 0.05
    assert cka(a, b, estimator="biased")[0, 0] > 0.9


def test_closed_forms(make_file: Make) -> None:
    # Two orthogonal contrasts of 4 images: biased CKA is the squared correlation, 0 and 1.
    one, two = np.array([1, 1, -1, -1.0]), np.array([1, -1, 1, -1.0])
    x, y, z = (np.float32(v)[:, None] for v in (one, two, one + two))
    a, b = make_file([x, z]), make_file([x, y])
    np.testing.assert_allclose(
        cka(a, b, estimator="biased"), [[1, 0], [0.5, 0.5]], rtol=0, atol=1e-12
    )
    # K is 1 within the pairs {01}, {23} and -1 between; U-centred 2/3 within, -1/3 between: with
    # {02}, {13} instead, the products over ordered pairs are 8 of -2/9 and 4 of 1/9, the squares
    # 4 of 4/9 and 8 of 1/9. So CKA = (-12/9) / (24/9).
    np.testing.assert_allclose(cka(a, b)[0], [1, -0.5], rtol=0, atol=1e-12)


def test_order_of_images_does_not_matter(
    make_file: Make, features: Draw, rng: np.random.Generator
) -> None:
    x, y, order = features(50, 20), features(50, 9), rng.permutation(50)
    for name in ("debiased", "biased"):
        straight = cka(make_file([x]), make_file([y]), estimator=name)
        shuffled = cka(make_file([x[order]]), make_file([y[order]]), estimator=name)
        np.testing.assert_allclose(straight, shuffled, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_massive_mean(make_file: Make, features: Draw, rng: np.random.Generator, name: str) -> None:
    # Float32 rounds x + 1000 itself, so the truth is taken from what was rounded.
    x, y = (
        (features(80, d) + 1000 * np.sign(rng.normal(size=d))).astype(np.float32) for d in (64, 400)
    )
    found = cka(make_file([x]), make_file([y]), estimator=name, batch_size=30)
    # The reference is moved to the mean where that changes nothing: raw, it is the less exact.
    shift = 0 if name == "paper" else 1
    x, y = (v.astype(np.float64) - shift * v.mean(axis=0, dtype=np.float64) for v in (x, y))
    assert found[0, 0] == pytest.approx(truth(name, x, y, 30), abs=1e-5)


def test_sum_of_grams_is_cka_of_concatenation(make_file: Make, features: Draw) -> None:
    cls, spatial, other = (features(30, d) for d in (5, 60, 20))
    parts = make_file([cls]), make_file([spatial])
    path = parts[0].path.with_name("sum")
    write_gram_file(path, [0], [add(parts[0].gram(0), parts[1].gram(0))], parts[0].meta)
    whole = np.concatenate([cls, spatial], axis=1)
    for name in ESTIMATORS:
        found = cka(GramFile(path), make_file([other]), estimator=name, batch_size=10)
        assert found[0, 0] == pytest.approx(truth(name, whole, other, 10), abs=2e-6)


def test_four_images_are_enough(make_file: Make, features: Draw) -> None:
    x, y = features(4, 3), features(4, 6)
    for name in ESTIMATORS:
        found = cka(make_file([x]), make_file([y]), estimator=name)
        assert found[0, 0] == pytest.approx(truth(name, x, y), abs=1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_three_images_are_too_few(make_file: Make, features: Draw, name: str) -> None:
    file = make_file([features(3, 5)])
    with pytest.raises(AnalysisError, match=r"at least 4 images, .* has 3"):
        cka(file, file, estimator=name)


@pytest.mark.parametrize("name", ["minibatch", "paper"])
def test_short_last_batch_is_dropped_with_a_note(
    make_file: Make, features: Draw, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    x, y = features(23, 9), features(23, 6)
    found = cka(make_file([x]), make_file([y]), estimator=name, batch_size=10)
    assert found[0, 0] == pytest.approx(truth(name, x, y, 10), abs=2e-6)
    assert len(caplog.messages) == 1
    assert "leaves out 3 of 23 images" in caplog.messages[0]


def test_batches_follow_the_seed(make_file: Make, features: Draw) -> None:
    a, b = make_file([features(40, 9)]), make_file([features(40, 6)])
    first, again, other = (
        cka(a, b, estimator="minibatch", batch_size=8, seed=seed)[0, 0] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_batches_mix_sorted_images(make_file: Make, rng: np.random.Generator) -> None:
    # Ten classes one after the other. Batches of one class each would see no class at all.
    classes = np.repeat(10 * rng.normal(size=(10, 8)), 20, axis=0)
    a, b = (make_file([(classes + rng.normal(size=(200, 8))).astype(np.float32)]) for _ in range(2))
    assert cka(a, b, estimator="minibatch", batch_size=20)[0, 0] > 0.9


@pytest.mark.parametrize("name", ["debiased", "biased", "minibatch"])
def test_constant_layer_is_nan_with_a_note(
    make_file: Make, features: Draw, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    constant = np.full((30, 6), 0.3, dtype=np.float32)
    a = make_file([features(30, 5), constant], model="broken")
    b = make_file([features(30, 5)])
    for pair, rows, columns in ((a, b), [1], []), ((b, a), [], [1]), ((a, a), [1], [1]):
        caplog.clear()
        found = cka(*pair, estimator=name, batch_size=10)
        expected = np.zeros(found.shape, dtype=bool)
        expected[rows], expected[:, columns] = True, True
        np.testing.assert_array_equal(np.isnan(found), expected)
        assert len(caplog.messages) == 1
        assert "layer 1 of broken (cls)" in caplog.messages[0]


def test_equally_far_images_are_nan_unless_biased(make_file: Make, features: Draw) -> None:
    a, b = make_file([np.eye(12, dtype=np.float32)]), make_file([features(12, 5)])
    assert np.isnan(cka(a, b)).all()
    assert np.isfinite(cka(a, b, estimator="biased")).all()


def test_paper_refuses_a_batch_without_range(make_file: Make, features: Draw) -> None:
    x = features(30, 5)
    x[batches(30, 10, 0)[1]] = 1
    file = make_file([features(30, 5), x], model="broken")
    with pytest.raises(AnalysisError, match="layer 1 of broken is constant over batch 1"):
        cka(file, file, estimator="paper", batch_size=10)
    assert np.isfinite(cka(file, file, estimator="minibatch", batch_size=10)).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_model_that_was_left_out_has_no_values(
    make_file: Make, features: Draw, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    a = make_file([features(20, d) for d in (4, 9)], "a")
    path = a.path.with_name("b")
    write_left_out(path, 20, replace(a.meta, model="b"))
    b = GramFile(path)
    for pair, shape in (((a, b), (2, 0)), ((b, a), (0, 2)), ((b, b), (0, 0))):
        caplog.clear()
        assert cka(*pair, estimator=name).shape == shape
        assert len(caplog.messages) == 1
        assert "no such tokens in b" in caplog.messages[0]
    # What would be wrong with values is wrong without.
    write_left_out(path, 20, replace(a.meta, model="b", image_fingerprint="j"))
    with pytest.raises(AnalysisError, match="different images"):
        cka(a, GramFile(path), estimator=name)


def test_unlike_files_fail(make_file: Make, features: Draw) -> None:
    x = [features(10, 4)]
    a = make_file(x, "a")
    for other, message in (
        (make_file(x, "b", image_fingerprint="j"), "different images .i and j."),
        (make_file(x, "b", tokens="all"), "different tokens .cls and all."),
        (make_file([features(11, 4)], "b"), "different numbers of images .10 and 11."),
    ):
        with pytest.raises(AnalysisError, match=message) as caught:
            cka(a, other)
        assert str(a.path) in str(caught.value)
        assert str(other.path) in str(caught.value)
        assert "anew from the same" in str(caught.value)


def test_an_unknown_estimator_fails(make_file: Make, features: Draw) -> None:
    file = make_file([features(10, 4)])
    with pytest.raises(AnalysisError, match="'rbf': choose debiased, biased, minibatch, paper"):
        cka(file, file, estimator="rbf")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_file_with_nan_fails(make_file: Make, features: Draw, name: str) -> None:
    file = make_file([features(20, 4)])
    grams = [file.gram(0)]
    grams[0].centred[3] = np.nan
    write_gram_file(file.path, [0], grams, file.meta)
    with pytest.raises(AnalysisError, match="not finite"):
        cka(GramFile(file.path), GramFile(file.path), estimator=name, batch_size=10)
