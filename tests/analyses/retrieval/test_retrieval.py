"""Ranking, average precision and mP@k against their definitions, by loops and by hand."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from vitfeat.analyses.retrieval.compute import (
    VARIANTS,
    average_precision,
    evaluate,
    precision_at,
    ranking,
    ranks,
    similarities,
    unit,
)
from vitfeat.errors import AnalysisError
from vitfeat.jobs.features import named


def graded(easy: list[int], hard: list[int], junk: list[int]) -> dict[str, np.ndarray]:
    lists = {"easy": easy, "hard": hard, "junk": junk}
    return {grade: np.array(places, dtype=np.int64) for grade, places in lists.items()}


def reference(
    order: list[int], positive: set[int], ignored: set[int], at: list[int]
) -> tuple[float, list[float]]:
    """AP and precisions of one ranking, walked through image by image in exact fractions."""
    left = [image for image in order if image not in ignored]
    area = Fraction(0)
    found, recall, precision = 0, Fraction(0), Fraction(1)
    hits = []
    for seen, image in enumerate(left, 1):
        is_hit = image in positive
        found += is_hit
        hits.append(is_hit)
        new_recall, new_precision = Fraction(found, len(positive)), Fraction(found, seen)
        # The curve of precision over recall: a trapezoid to the next point.
        area += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    last = max(place for place, is_hit in enumerate(hits, 1) if is_hit)
    depths = [min(last, k) for k in at]
    return float(area), [sum(hits[:depth]) / depth for depth in depths]


def test_a_ranking_worked_by_hand() -> None:
    """Ranking P J N P J P of images 0 ... 5: without junk P N P P.

    AP: recall rises by 1/3 at ranks 0, 2, 3. Precision before and after: 1 and 1; 1/2 and 2/3;
    2/3 and 3/4. Sum of the means / 3 = (1 + 7/12 + 17/24) / 3 = 55/72.
    """
    found = ranks(np.arange(6), np.array([5, 0, 3]), np.array([4, 1]))
    assert found.tolist() == [0, 2, 3]
    assert average_precision(found) == pytest.approx(55 / 72, abs=1e-15)
    assert precision_at(found, 1) == 1
    assert precision_at(found, 2) == 1 / 2
    assert precision_at(found, 3) == 2 / 3
    assert precision_at(found, 4) == 3 / 4
    # Beyond the last positive there is nothing to find: 3 of 4, not 3 of 10.
    assert precision_at(found, 10) == 3 / 4


def test_variants_worked_by_hand() -> None:
    """Images in order: hard, negative, easy, junk, easy; similarities fall."""
    similarity = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]])
    scores = evaluate(similarity, [graded([2, 4], [0], [3])], [1, 5])
    # Easy: N E E. Recall rises at ranks 1, 2: (0 + 1/2)/2, (1/2 + 2/3)/2.
    assert scores["easy"].average_precision[0] == pytest.approx((1 / 4 + 7 / 12) / 2)
    assert scores["easy"].precision[0].tolist() == [0, 2 / 3]
    # Medium: H N E E. (1 + 1)/2, (1/2 + 2/3)/2, (2/3 + 3/4)/2.
    assert scores["medium"].average_precision[0] == pytest.approx((1 + 7 / 12 + 17 / 24) / 3)
    assert scores["medium"].precision[0].tolist() == [1, 3 / 4]
    # Hard: H N.
    assert scores["hard"].average_precision[0] == 1
    assert scores["hard"].precision[0].tolist() == [1, 1]
    assert [s.positives.tolist() for s in scores.values()] == [[2], [3], [1]]


@pytest.mark.parametrize("first", [0, 1, 2, 5])
def test_a_single_positive(first: int) -> None:
    """Closed form: the mean of 0 (or 1 at the first place) and 1 / place."""
    found = np.array([first])
    assert average_precision(found) == (1 if first == 0 else 1 / (first + 1) / 2)
    assert precision_at(found, 3) == (1 / (first + 1) if first < 3 else 0)


def test_junk_before_between_and_behind_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        n, n_junk = 12, 5
        positive = generator.choice(n, 4, replace=False)
        order = generator.permutation(n)
        plain = ranks(order, positive, np.array([], dtype=np.int64))
        with_junk = list(order)
        for image in range(n, n + n_junk):
            with_junk.insert(generator.integers(len(with_junk) + 1), image)
        found = ranks(np.array(with_junk), positive, np.arange(n, n + n_junk))
        np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n, at = 40, [1, 3, 5, 10, 100]
    similarity = generator.standard_normal((30, n)).astype(np.float32)
    # Some equal ones.
    similarity = np.round(similarity, 1)
    known = []
    for _ in range(30):
        grades = generator.choice(4, n, p=[0.1, 0.05, 0.1, 0.75])
        known.append(graded(*(np.flatnonzero(grades == g).tolist() for g in range(3))))
    scores = evaluate(similarity, known, at)
    for variant, (positives, others) in {
        "easy": (["easy"], ["hard", "junk"]),
        "medium": (["easy", "hard"], ["junk"]),
        "hard": (["hard"], ["easy", "junk"]),
    }.items():
        counted = 0
        for query, (row, one) in enumerate(zip(similarity, known, strict=True)):
            positive = {int(p) for grade in positives for p in one[grade]}
            if not positive:
                assert query not in scores[variant].queries
                continue
            ignored = {int(p) for grade in others for p in one[grade]}
            order = sorted(range(n), key=lambda image, row=row: (-row[image], image))
            ap, precisions = reference(order, positive, ignored, at)
            assert scores[variant].queries[counted] == query
            assert scores[variant].positives[counted] == len(positive)
            assert scores[variant].average_precision[counted] == pytest.approx(ap, abs=1e-14)
            np.testing.assert_allclose(scores[variant].precision[counted], precisions, atol=1e-15)
            counted += 1
        assert counted == len(scores[variant].queries) > 0


def test_queries_without_positives_do_not_count() -> None:
    similarity = np.ones((3, 4), dtype=np.float32)
    known = [graded([0], [], []), graded([], [], [1]), graded([], [2], [])]
    scores = evaluate(similarity, known, [1])
    assert {v: s.queries.tolist() for v, s in scores.items()} == {
        "easy": [0],
        "medium": [0, 2],
        "hard": [2],
    }
    none = evaluate(similarity[:1], [graded([], [], [0])], [1, 5])
    assert list(none) == list(VARIANTS)
    assert all(s.precision.shape == (0, 2) and not len(s.queries) for s in none.values())


def test_equal_similarities_are_ranked_in_database_order() -> None:
    assert ranking(np.array([1, 2, 2, 1, 2], dtype=np.float32)).tolist() == [1, 2, 4, 0, 3]


@pytest.mark.parametrize("width", [3, 64, 257])
def test_equal_descriptors_are_equal_wherever_they_stand(width: int) -> None:
    """Matrix products sum in an order that depends on the place in a block, and on its size."""
    generator = np.random.default_rng(width)
    one = generator.standard_normal(width).astype(np.float32)
    queries = generator.standard_normal((7, width)).astype(np.float32)
    blocks = [np.tile(one, (size, 1)) for size in (1, 2, 3, 5, 17, 64, 3)]
    found = similarities(queries, blocks, 95)
    assert (found == found[:, :1]).all()


def test_similarities_are_cosines() -> None:
    generator = np.random.default_rng(0)
    queries, database = generator.standard_normal((4, 9)), generator.standard_normal((11, 9))
    expected = [[sum(a * b) / (sum(a * a) * sum(b * b)) ** 0.5 for b in database] for a in queries]
    before = queries.copy(), database.copy()
    found = similarities(queries, [database[:5], database[5:5], database[5:]], 11)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=6e-8)
    # Lengths say nothing, and inputs stay as they were.
    scaled = similarities(3e4 * queries, [database * 1e-6], 11)
    np.testing.assert_allclose(scaled, found, atol=2e-7)
    np.testing.assert_array_equal(queries, before[0])
    np.testing.assert_array_equal(database, before[1])


def test_descriptors_of_zeros_and_of_extreme_lengths() -> None:
    values = np.array([[0, 0], [3e300, 4e300], [3e-300, 4e-300]])
    np.testing.assert_allclose(unit(values), [[0, 0], [0.6, 0.8], [0.6, 0.8]])
    assert similarities(values[1:2], [values], 3).tolist() == [[0, 1, 1]]
    assert unit(np.zeros((0, 5))).shape == (0, 5)


def test_what_is_not_finite_is_an_error() -> None:
    values = np.ones((3, 2))
    values[1, 0] = np.inf
    with pytest.raises(AnalysisError, match="descriptors of 1 image of 3 with values that are not"):
        similarities(np.ones((1, 2)), [values], 3)
    with pytest.raises(AnalysisError, match="no numbers cannot be ranked"):
        evaluate(np.array([[0, np.nan]]), [graded([0], [], [])], [1])


@pytest.mark.parametrize("n", [4, 6])
def test_blocks_must_be_the_database(n: int) -> None:
    with pytest.raises(AnalysisError, match=f"the database, which must have {n}"):
        similarities(np.ones((1, 2)), [np.ones((3, 2)), np.ones((2, 2))], n)


def expected_by_chance(n: int, m: int) -> float:
    """Mean AP over all orders of m positives among n images, from the hypergeometric law."""
    total = Fraction(0)
    for j in range(m):
        for rank in range(j, n - (m - 1 - j)):
            # Orders with j positives before this one at `rank`, and the others behind.
            chance = Fraction(comb(rank, j) * comb(n - 1 - rank, m - 1 - j), comb(n, m))
            before = Fraction(j, rank) if rank else Fraction(1)
            total += chance * (before + Fraction(j + 1, rank + 1)) / 2
    return float(total / m)


def test_random_descriptors_score_as_chance_does() -> None:
    generator = np.random.default_rng(1)
    n, m, n_queries = 60, 5, 3000
    database = generator.standard_normal((n, 24))
    queries = generator.standard_normal((n_queries, 24))
    known = [
        graded(generator.choice(n, m, replace=False).tolist(), [], []) for _ in range(n_queries)
    ]
    scores = evaluate(similarities(queries, [database], n), known, [1, 10])["easy"]
    ap = scores.average_precision
    error = ap.std() / n_queries**0.5
    assert ap.mean() == pytest.approx(expected_by_chance(n, m), abs=4 * error)
    assert error < 0.003
    # Of the first image and of the first ten, m / n are positive (a query whose last positive is
    # among them gains a little).
    assert scores.precision.mean(0) == pytest.approx([m / n, m / n], abs=0.02)


def test_perfect_descriptors_score_one_and_the_reverse_least() -> None:
    generator = np.random.default_rng(2)
    landmarks = np.linalg.qr(generator.standard_normal((16, 16)))[0][:8]
    of = np.repeat(np.arange(8), 5)
    database = landmarks[of] + 0.01 * generator.standard_normal((40, 16))
    known = [
        graded(*(np.flatnonzero(of == q)[part].tolist() for part in ([0, 1], [2, 3], [4])))
        for q in range(8)
    ]
    for scores in evaluate(similarities(landmarks, [database], 40), known, [1, 2]).values():
        assert (scores.average_precision == 1).all()
        assert (scores.precision == 1).all()
    # All negatives first: 35 of them, then 4 positives.
    worst = evaluate(similarities(-landmarks, [database], 40), known, [1])["medium"]
    least = np.mean([(j / (35 + j) + (j + 1) / (36 + j)) / 2 for j in range(4)])
    np.testing.assert_allclose(worst.average_precision, least)
    assert (worst.precision == 0).all()


def test_names_of_descriptors() -> None:
    assert [named("cls", False), named("mean", True)] == ["cls", "mean_norm"]
