from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.analyses.video import reference_davis
from tests.analyses.video.test_boundaries import blob
from vitfeat.analyses.video.segmentation_scores import (
    SCORES,
    SequenceScores,
    quarters,
    region_similarity,
    score_sequence,
    statistics,
    summary,
)
from vitfeat.errors import AnalysisError


def masks(*pictures: str) -> list[np.ndarray]:
    """Masks of one row each, of digits; ``v`` is void."""
    return [
        np.array([[255 if mark == "v" else int(mark) for mark in picture]], dtype=np.uint8)
        for picture in pictures
    ]


def video(generator: np.random.Generator, n_frames: int, n_objects: int) -> list[np.ndarray]:
    found = []
    for _ in range(n_frames):
        mask = np.zeros((24, 30), dtype=np.uint8)
        for number in range(1, n_objects + 1):
            mask[blob(generator, mask.shape)] = number
        found.append(mask)
    return found


def test_region_similarity_of_squares() -> None:
    true, guess = np.zeros((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    assert region_similarity(true, guess) == 1
    true[1:5, 1:5] = True
    assert region_similarity(true, guess) == region_similarity(guess, true) == 0
    guess[2:6, 3:7] = True
    assert region_similarity(true, guess) == 6 / 26
    assert region_similarity(true, true) == 1


def test_equal_to_the_definition_to_the_last_digit() -> None:
    generator = np.random.default_rng(1)
    true, guess = video(generator, 8, 3), video(generator, 8, 3)
    scores = score_sequence(true, guess, [1, 2, 3])
    assert scores.j.shape == scores.f.shape == (3, 6)
    assert (scores.n_objects, scores.n_frames) == (3, 6)
    for number in (1, 2, 3):
        for frame in range(1, 7):
            pair = true[frame] == number, guess[frame] == number
            assert scores.j[number - 1, frame - 1] == reference_davis.region(*pair)
            assert scores.f[number - 1, frame - 1] == reference_davis.boundary(*pair)


def test_the_first_and_the_last_frame_do_not_count() -> None:
    true = masks("0110", "0110", "0110", "0110")
    wrong = np.ones_like(true[0])
    assert (score_sequence(true, [wrong, true[1], true[2], wrong], [1]).j == 1).all()
    assert score_sequence(true, [true[0], wrong, true[2], true[3]], [1]).j.tolist() == [[0.5, 1]]


def test_masks_are_taken_one_at_a_time() -> None:
    frames = masks("0110", "0110", "0100")

    def once() -> Iterator[np.ndarray]:
        yield from frames

    assert (score_sequence(once(), once(), [1]).j == 1).all()


def test_void_and_further_objects_of_the_truth_are_background() -> None:
    true = masks("0000", "11v2", "0000")
    # Void predicted as the object is an error, and void that is left out is none.
    assert score_sequence(true, masks("0000", "1110", "0000"), [1]).j.tolist() == [[2 / 3]]
    assert score_sequence(true, masks("0000", "1100", "0000"), [1]).j.tolist() == [[1]]
    assert score_sequence(true, masks("0000", "1101", "0000"), [1]).j.tolist() == [[2 / 3]]
    assert score_sequence(true, masks("0000", "1102", "0000"), [1, 2]).j.tolist() == [[1], [1]]
    # The outline of the object ends at void as it does at background.
    plain = masks("0000", "1102", "0000")
    for guess in ("1110", "1000", "0000", "1112"):
        pair = masks("0000", guess, "0000")
        np.testing.assert_array_equal(
            score_sequence(true, pair, [1, 2]).f, score_sequence(plain, pair, [1, 2]).f
        )


def test_an_object_that_is_gone_and_predicted_nowhere_is_right() -> None:
    true = masks("1122", "1100", "1122")
    scores = score_sequence(true, true, [1, 2, 3])
    assert (scores.j == 1).all()
    assert (scores.f == 1).all()
    lost = score_sequence(true, masks("1122", "1102", "1122"), [1, 2, 3])
    assert lost.j.tolist() == [[1], [0], [1]]
    assert lost.f[1].tolist() == [0]


def test_only_the_objects_that_are_named_are_scored() -> None:
    true = masks("1133", "1130", "1133")
    guess = masks("1133", "1100", "1133")
    scores = score_sequence(true, guess, [1, 3])
    assert scores.j.tolist() == [[1], [0]]
    assert {record.number for record in scores.records()} == {1, 3}
    # As the official evaluation has it, the second, which no pixel has, is right.
    assert score_sequence(true, guess, [1, 2, 3]).j.tolist() == [[1], [1], [0]]


# Counted from 1: where the quarters begin and end, with halves rounded upwards, worked by hand.
QUARTERS = {
    1: [1, 1, 1, 1, 1],
    2: [1, 1, 2, 2, 2],
    3: [1, 2, 2, 3, 3],
    4: [1, 2, 3, 3, 4],
    5: [1, 2, 3, 4, 5],
    6: [1, 2, 4, 5, 6],
    7: [1, 3, 4, 6, 7],
    8: [1, 3, 5, 6, 8],
    9: [1, 3, 5, 7, 9],
    18: [1, 5, 10, 14, 18],
}


@pytest.mark.parametrize("n", QUARTERS)
def test_quarters_by_hand(n: int) -> None:
    ends = QUARTERS[n]
    expected = [(ends[i] - 1, ends[i + 1]) for i in range(4)]
    assert [(part.start, part.stop) for part in quarters(n)] == expected


@pytest.mark.parametrize("n", [*range(1, 21), 69, 102])
def test_statistics_are_the_definition(n: int) -> None:
    values = np.random.default_rng(n).random(n)
    found = statistics(values)
    assert found.mean == pytest.approx(sum(values) / n, abs=1e-15)
    assert found.recall == sum(value > 0.5 for value in values) / n
    assert found.decay == pytest.approx(reference_davis.decay(values.tolist()), abs=1e-15)


def test_statistics_by_hand() -> None:
    # Six frames: the first quarter is frames 1 and 2, the last 5 and 6.
    mean, recall, decay = statistics(np.array([1, 0.5, 0.75, 0.25, 0.5, 0]))
    assert (mean, recall, decay) == (0.5, 2 / 6, 0.5)


def test_a_half_is_not_found() -> None:
    assert statistics(np.array([0.5, 0.5])).recall == 0


def test_records_are_of_every_object() -> None:
    j = np.array([[1, 0.5, 0.75, 0.25, 0.5, 0], [1] * 6])
    records = list(SequenceScores(j, 1 - j, tuple(range(1, len(j) + 1))).records())
    assert [record.score for record in records] == [*SCORES, *SCORES]
    assert [record.number for record in records] == [1] * 7 + [2] * 7
    assert {record.n for record in records} == {6}
    values = [record.value for record in records]
    assert values[:7] == [0.5, 0.5, 2 / 6, 0.5, 0.5, 2 / 6, -0.5]
    assert values[7:] == [0.5, 1, 1, 0, 0, 0, 0]


def test_the_summary_is_the_mean_over_objects_of_all_sequences() -> None:
    long = SequenceScores(np.full((1, 30), 0.9), np.full((1, 30), 0.3), (1,))
    short = SequenceScores(np.full((2, 3), 0.6), np.full((2, 3), 0.75), (1, 2))
    found = summary([long, short])
    assert tuple(found) == SCORES
    assert found["j_mean"] == pytest.approx((0.9 + 0.6 + 0.6) / 3)
    assert found["f_mean"] == pytest.approx((0.3 + 0.75 + 0.75) / 3)
    assert found["jf_mean"] == pytest.approx((0.7 + 0.6) / 2)
    assert (found["j_recall"], found["f_recall"]) == (1, 2 / 3)
    assert found["j_decay"] == pytest.approx(0, abs=1e-15)


def test_a_perfect_and_an_empty_prediction() -> None:
    generator = np.random.default_rng(3)
    true = video(generator, 7, 2)
    perfect = summary([score_sequence(true, true, [1, 2])])
    assert [perfect[name] for name in SCORES] == [1, 1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("true", "guess", "n", "message"),
    [
        (["01", "01"], ["01", "01"], 1, "needs three or more"),
        ([], [], 1, "needs three or more"),
        (["01"] * 3, ["01"] * 3, 0, "first mask holds none"),
        (["01"] * 3, ["01"] * 4, 1, "3 true masks and more on the other side"),
        (["01"] * 4, ["01"] * 3, 1, "3 predicted masks and more"),
        (["01"] * 3, ["01", "012", "01"], 2, r"frame 1: .* shape \(1, 3\), the true one of"),
        (["01"] * 4, ["01", "01", "02", "01"], 1, "frame 2: .* object 2, but the .* are 1$"),
        (["01"] * 3, ["01", "0v", "01"], 1, "frame 1: .* object 255"),
    ],
)
def test_errors(true: list[str], guess: list[str], n: int, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        score_sequence(masks(*true), masks(*guess), range(1, n + 1))


def test_no_sequence_has_scores() -> None:
    with pytest.raises(AnalysisError, match="no sequence has scores"):
        summary([])
