"""Weighted votes of neighbours, against plain loops and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vitfeat.analyses.knn.compute import NO_VOTES, knn_ranks, share_within, votes_ranks
from vitfeat.errors import AnalysisError


def reference(
    classes: np.ndarray, cosines: np.ndarray, truth: np.ndarray, k: int, temperature: float
) -> list[int]:
    """Each image in turn; votes by class in the order of the neighbours."""
    ranks = []
    for own, near, true in zip(classes.tolist(), cosines.tolist(), truth.tolist(), strict=True):
        votes: dict[int, float] = {}
        for label, cosine in list(zip(own, near, strict=True))[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp((cosine - near[0]) / temperature)
        # A dict keeps the order of entry, and so does a sort of equal ones: the nearer first.
        order = sorted(votes, key=lambda label: -votes[label])
        ranks.append(order.index(true) if true in order else NO_VOTES)
    return ranks


def drawn(n: int, most: int, n_classes: int, seed: int) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    # Some classes may be the truth and never a neighbour's.
    truth = generator.integers(-1, n_classes + 1, n)
    cosines = -np.sort(-generator.uniform(-1, 1, (n, most)), axis=1)
    return generator.integers(0, n_classes, (n, most)), cosines, truth


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0, 1e3])
@pytest.mark.parametrize("n_classes", [2, 9, 1000])
def test_ranks_are_those_of_plain_loops(n_classes: int, temperature: float) -> None:
    classes, cosines, truth = drawn(200, 30, n_classes, n_classes)
    counts = (1, 2, 7, 30)
    ranks = votes_ranks(classes, cosines, truth, counts, temperature)
    for k, found in zip(counts, ranks, strict=True):
        assert found.tolist() == reference(classes, cosines, truth, k, temperature)


def test_ranks_of_many_equal_votes_are_those_of_plain_loops() -> None:
    """Few values, so that sums are equal often; they must be so in whatever company."""
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 3, (300, 60))
    cosines = -np.sort(-generator.choice([0.9, 0.83, 0.8], (300, 60)), axis=1)
    truth = generator.integers(0, 3, 300)
    counts = (60, 3, 11, 42)
    ranks = votes_ranks(classes, cosines, truth, counts)
    for k, found in zip(counts, ranks, strict=True):
        assert found.tolist() == reference(classes, cosines, truth, k, 0.07)
        np.testing.assert_array_equal(found, votes_ranks(classes, cosines, truth, [k])[0])


def test_a_case_by_hand() -> None:
    """With temperature 1 / ln 2, votes are powers of two: 4 for class 7; 2 + 2 for 5; 1 for 8."""
    classes = np.array([[7, 5, 5, 8]] * 4)
    cosines = np.array([[2.0, 1.0, 1.0, 0.0]] * 4)
    truth = np.array([7, 5, 8, 9])
    one, two, all_ = votes_ranks(classes, cosines, truth, (1, 2, 4), 1 / math.log(2))
    # Votes of 7 and 5 are equal at last, and the nearest of 7 is nearer.
    assert one.tolist() == [0, NO_VOTES, NO_VOTES, NO_VOTES]
    assert two.tolist() == [0, 1, NO_VOTES, NO_VOTES]
    assert all_.tolist() == [0, 1, 2, NO_VOTES]
    more = np.array([[2.0, 1.0, 1.0 + 1e-9, 0.0]])
    assert votes_ranks(classes[:1], more, np.array([5]), [4], 1 / math.log(2)).tolist() == [[0]]


def test_a_class_without_votes_is_never_among_the_first_five() -> None:
    classes, cosines = np.zeros((1, 3), dtype=np.int64), np.ones((1, 3))
    for other in (1, 2, -1):
        (ranks,) = votes_ranks(classes, cosines, np.array([other]), [3])
        assert share_within(ranks, 5) == 0.0
    (ranks,) = votes_ranks(classes, cosines, np.array([0]), [3])
    assert share_within(ranks, 1) == 1.0


@pytest.mark.parametrize("temperature", [1e-6, 1e-300, 1e300])
def test_any_temperature_gives_ranks(temperature: float) -> None:
    """Votes that vanish beside the nearest one's are votes still, by nearness."""
    classes, cosines = np.array([[3, 1, 1, 2]]), np.array([[0.9, 0.8, 0.7, -0.9]])
    expected = [[1], [0], [2]] if temperature > 1 else [[0], [1], [2]]
    for label, rank in zip((3, 1, 2), expected, strict=True):
        found = votes_ranks(classes, cosines, np.array([label]), [4], temperature)
        assert found[0].tolist() == rank


def test_a_small_temperature_does_not_overflow() -> None:
    """Each vote is exp(900), two of them a little less: beyond any float."""
    cosines = np.array([[0.9, 0.8999, 0.8999]])
    classes, truth = np.array([[3, 1, 1]]), np.array([1])
    assert votes_ranks(classes, cosines, truth, [3], 1e-3).tolist() == [[0]]
    assert votes_ranks(classes, cosines, truth, [2], 1e-3).tolist() == [[1]]


def test_names_of_classes_do_not_matter() -> None:
    classes, cosines, truth = drawn(100, 12, 5, 3)
    renamed = np.random.default_rng(1).permutation(7)[np.arange(-1, 6) + 1] * 11 - 3
    ranks = votes_ranks(classes, cosines, truth, (3, 12))
    other = votes_ranks(renamed[classes + 1], cosines, renamed[truth + 1], (3, 12))
    np.testing.assert_array_equal(ranks, other)


# --- From features ---


def images(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Eight classes around eight axes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 8, n)
    x = np.eye(8, 12)[labels] + spread * generator.standard_normal((n, 12)) / 3
    return x.astype(np.float32), labels


def ranks_of(
    test: tuple[np.ndarray, np.ndarray],
    train: tuple[np.ndarray, np.ndarray],
    counts: tuple[int, ...],
    **options: object,
) -> np.ndarray:
    return knn_ranks(
        lambda start, stop: test[0][start:stop],
        test[1],
        lambda start, stop: train[0][start:stop],
        train[1],
        counts,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("k", [1, 10, 40])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_classes_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    train, test = images(300, 0), images(120, 1)
    model = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    scores = model.fit(*train).predict_proba(test[0])
    (ranks,) = ranks_of(test, train, (k,), temperature=temperature)
    own = scores[np.arange(120), test[1]]
    expected = np.where(own > 0, (scores > own[:, None]).sum(axis=1), NO_VOTES)
    np.testing.assert_array_equal(ranks, expected)
    assert 0.4 < share_within(ranks, 1) < 1


def test_several_numbers_of_neighbours_are_one_search_and_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vitfeat.analyses.knn.compute._VOTES", 500)
    train, test = images(150, 0), images(90, 1)
    counts = (20, 1, 150, 5)
    together = ranks_of(test, train, counts)
    for k, ranks in zip(counts, together, strict=True):
        np.testing.assert_array_equal(ranks_of(test, train, (k,))[0], ranks)


def test_torch_finds_the_same() -> None:
    train, test = images(150, 0), images(90, 1)
    found = [ranks_of(test, train, (3, 30), device=device) for device in ("cpu", "cpu:0")]
    np.testing.assert_array_equal(*found)


def test_an_image_that_is_there_finds_itself() -> None:
    train = images(150, 0)
    (ranks,) = ranks_of(train, train, (1,))
    assert share_within(ranks, 1) == 1.0


def test_features_without_meaning_are_at_chance() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4000, 16)).astype(np.float32)
    labels = generator.integers(0, 10, 4000)
    (ranks,) = ranks_of((x[:2000], labels[:2000]), (x[2000:], labels[2000:]), (20,))
    # Four standard deviations of a share of 2,000 images.
    assert share_within(ranks, 1) == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / 2000))


def test_equal_features_vote_with_the_first_images() -> None:
    x = np.ones((7, 4), dtype=np.float32)
    labels = np.array([4, 2, 2, 3, 3, 3, 3])
    truth = np.array([4, 2, 3])
    three, all_ = ranks_of((x[:3], truth), (x, labels), (3, 7))
    assert three.tolist() == [1, 0, NO_VOTES]
    assert all_.tolist() == [2, 1, 0]


@pytest.mark.parametrize("counts", [(), (0,), (3, 8), (-1, 2)])
def test_numbers_of_neighbours_that_there_are_not(counts: tuple[int, ...]) -> None:
    x = (np.ones((7, 4), dtype=np.float32), np.zeros(7, dtype=np.int64))
    with pytest.raises(AnalysisError, match="7 training images it goes from 1 to 7"):
        ranks_of(x, x, counts)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(AnalysisError, match="above 0"):
        votes_ranks(np.zeros((1, 1), dtype=int), np.ones((1, 1)), np.zeros(1), [1], temperature)
