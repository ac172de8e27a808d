from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.numerics.reference_upsampled import cosines, feature
from vitfeat.data.views import DenseView, PaddedView, SquareView, View
from vitfeat.errors import AnalysisError
from vitfeat.numerics import upsampled
from vitfeat.numerics.upsampled import TIE, features_at, nearest_pixels, pixels_within

Box = tuple[float, float, float, float]

# A view's box of an image of that size: padded on either axis, cut on either axis, whole.
CASES: list[tuple[View, tuple[int, int], tuple[int, int]]] = [
    (PaddedView((32, 32)), (41, 23), (4, 4)),
    (PaddedView((32, 32)), (19, 37), (5, 3)),
    (SquareView((32, 32), 0.875), (45, 30), (4, 4)),
    (SquareView((24, 40), 1.0), (23, 31), (3, 5)),
    (DenseView("short", 32, (8, 8)), (39, 26), (4, 6)),
]


def random_tokens(grid: tuple[int, int], seed: int = 0, channels: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*grid, channels))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nearest_is_that_of_the_upsampled_map(
    case: tuple[View, tuple[int, int], tuple[int, int]], dtype: str
) -> None:
    view, size, grid = case
    box = view.box(*size)
    tokens = random_tokens(grid).astype(dtype)
    queries = random_tokens((6, 3), seed=1).reshape(-1, 7).astype(dtype)
    found = nearest_pixels(queries, tokens, box, size)
    for number, query in enumerate(queries):
        by_place = cosines(query, tokens, box, size)
        best = max(by_place.values())
        assert found.cosines[number] == pytest.approx(best, abs=1e-12)
        at = [place for place, value in by_place.items() if value >= best - TIE]
        assert found.tied[number] == (len(at) > 1)
        # Pixels beyond the centre of the last token are one run; at least one axis has none.
        rows, columns = ([place[axis] for place in at] for axis in (0, 1))
        assert found.places[number].tolist() == [np.mean(columns), np.mean(rows)]


def test_groups_of_queries_and_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, queries = random_tokens((4, 4)), random_tokens((5, 9), seed=1).reshape(45, 7)
    whole = nearest_pixels(queries, tokens, (0, -10, 60, 50), (60, 40))
    monkeypatch.setattr(upsampled, "_QUERIES", 7)
    monkeypatch.setattr(upsampled, "_ROWS", 3)
    parts = nearest_pixels(queries, tokens, (0, -10, 60, 50), (60, 40))
    np.testing.assert_array_equal(parts.places, whole.places)
    np.testing.assert_allclose(parts.cosines, whole.cosines, atol=1e-14)
    np.testing.assert_array_equal(parts.tied, whole.tied)


@pytest.mark.parametrize("size", [(32, 24), (30, 25)])
def test_features_are_those_of_torch_upsampling(size: tuple[int, int]) -> None:
    tokens = random_tokens((3, 5))
    width, height = size
    channels_first = torch.from_numpy(tokens).permute(2, 0, 1)[None]
    whole = torch.nn.functional.interpolate(
        channels_first, size=(height, width), mode="bilinear", align_corners=False
    )[0].permute(1, 2, 0)
    places = [(x, y) for y in range(height) for x in range(width)]
    found = features_at(tokens, (0, 0, width, height), places)
    np.testing.assert_allclose(found.reshape(height, width, 7), whole.numpy(), atol=1e-12)


def test_features_between_pixels_are_not_rounded() -> None:
    tokens = random_tokens((3, 5))
    box = (-4.5, 2.25, 40.0, 30.0)
    places = np.random.default_rng(2).uniform(0, 25, (40, 2))
    found = features_at(tokens, box, places)
    for place, one in zip(places, found, strict=True):
        np.testing.assert_allclose(one, feature(tokens, box, *place), atol=1e-12)


def test_by_hand() -> None:
    # Two tokens side by side, of 4 pixels each: their centres are at 1.5 and 5.5.
    tokens = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    box = (0.0, 0.0, 8.0, 1.0)
    found = features_at(tokens, box, [(1.5, 0), (3.5, 0), (5.5, 0), (2.5, 0), (-3, 0)])
    expected = [[1, 0], [0.5, 0.5], [0, 1], [0.75, 0.25], [1, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-15)
    # (3, 1) is the mix of 3/4 and 1/4, between pixels 2 (7/8, 1/8) and 3 (5/8, 3/8).
    near = nearest_pixels([[3.0, 1.0], [5.0, 3.0], [0.0, 2.0]], tokens, box, (8, 1))
    # By angles: 18.43, 8.13 and 30.96 degrees: pixel 2 is 10.3 away, pixel 3 12.5.
    assert near.places.tolist() == [[2, 0], [3, 0], [6.5, 0]]
    angle = np.arctan2(1, 3) - np.arctan2(1, 7)
    assert near.cosines == pytest.approx([np.cos(angle), 1, 1])
    # Pixels 6 and 7 are beyond the centre of the last token.
    assert near.tied.tolist() == [False, False, True]


def test_the_cosine_is_taken_after_upsampling() -> None:
    # The mix of a long and a short token is turned towards the long one, so that their directions
    # alone would give another place.
    tokens = np.array([[[10.0, 0.0], [0.0, 1.0]]])
    by_direction = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    box = (0.0, 0.0, 80.0, 1.0)
    assert nearest_pixels([[1.0, 1.0]], tokens, box, (80, 1)).places[0, 0] == pytest.approx(
        19.5 + 40 * 10 / 11, abs=0.5
    )
    assert nearest_pixels([[1.0, 1.0]], by_direction, box, (80, 1)).places[0, 0] in (39, 40)


def test_nothing_of_the_padding_is_a_candidate() -> None:
    size = (40, 20)
    box = PaddedView((32, 32)).box(*size)
    tokens = np.zeros((8, 8, 2))
    tokens[..., 0] = 1
    # Rows 0, 1, 6 and 7 are padding, and row 2 is next to it.
    tokens[:2] = tokens[6:] = (0, 1)
    found = nearest_pixels([[0.0, 1.0]], tokens, box, size)
    rows = cosines(np.array([0.0, 1.0]), tokens, box, size)
    assert found.places[0, 1] == 0
    assert found.cosines[0] == pytest.approx(max(rows.values()))
    assert found.cosines[0] < 1


def test_of_places_that_tie_the_uppermost_then_leftmost_counts() -> None:
    tokens = np.zeros((3, 3, 2))
    tokens[..., 0] = 1
    for place in ((1, 2), (2, 0), (2, 1)):
        tokens[place] = (0, 1)
    # A pixel a token.
    found = nearest_pixels([[0.0, 2.0], [1.0, 0.0]], tokens, (0, 0, 3, 3), (3, 3))
    assert found.places.tolist() == [[2, 1], [0, 0]]
    assert found.tied.tolist() == [True, True]
    assert found.cosines == pytest.approx([1, 1])


def test_ties_are_found_across_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampled, "_ROWS", 1)
    tokens = np.eye(3)[:, None]
    tokens[2] = tokens[0]
    found = nearest_pixels(np.eye(3)[:2], tokens, (0, 0, 1, 3), (1, 3))
    assert found.places.tolist() == [[0, 0], [0, 1]]
    assert found.tied.tolist() == [True, False]


def test_equal_features_everywhere_tie_in_the_first_run() -> None:
    found = nearest_pixels([[1.0, 2.0]], np.ones((2, 2, 2)), (0, 0, 8, 8), (8, 8))
    # Pixels 0 and 1 are before the centre of the first token.
    assert found.places.tolist() == [[0.5, 0.5]]
    assert found.tied.tolist() == [True]


def test_zeros_have_the_cosine_0_with_all() -> None:
    tokens = random_tokens((2, 2))
    zero_query = nearest_pixels(np.zeros((1, 7)), tokens, (0, 0, 8, 8), (8, 8))
    assert zero_query.cosines.tolist() == [0]
    assert zero_query.tied.tolist() == [True]
    # Every token points away from the query but for one of zeros.
    tokens = np.full((1, 3, 2), -1.0)
    tokens[0, 1] = 0
    found = nearest_pixels([[1.0, 1.0]], tokens, (0, 0, 3, 1), (3, 1))
    assert found.places.tolist() == [[1, 0]]
    assert found.cosines.tolist() == [0]


def test_opposite_tokens_cancel_without_noise() -> None:
    tokens = np.array([[[0.1, 0.3], [-0.1, -0.3]]]) * 1e3
    # The pixel in the middle mixes both alike.
    found = nearest_pixels([[3.0, -1.0]], tokens, (0, 0, 3, 1), (3, 1))
    assert found.cosines[0] == pytest.approx(0, abs=1e-9)
    assert nearest_pixels([[0.1, 0.3]], tokens, (0, 0, 3, 1), (3, 1)).places.tolist() == [[0, 0]]


def test_x_and_y_are_treated_alike() -> None:
    tokens, queries = random_tokens((4, 5)), random_tokens((3, 10), seed=3).reshape(30, 7)
    box, size = (-3.0, 1.5, 33.0, 27.25), (30, 26)
    turned = (box[1], box[0], box[3], box[2])
    found = nearest_pixels(queries, tokens, box, size)
    other = nearest_pixels(queries, tokens.transpose(1, 0, 2), turned, size[::-1])
    np.testing.assert_allclose(found.cosines, other.cosines, atol=1e-13)
    np.testing.assert_array_equal(found.places, other.places[:, ::-1])
    places = np.random.default_rng(0).uniform(0, 25, (20, 2))
    np.testing.assert_allclose(
        features_at(tokens, box, places),
        features_at(tokens.transpose(1, 0, 2), turned, places[:, ::-1]),
        atol=1e-13,
    )


def test_inputs_are_not_changed() -> None:
    tokens, queries = random_tokens((4, 5)), random_tokens((1, 10)).reshape(10, 7)
    before = tokens.copy(), queries.copy()
    nearest_pixels(queries, tokens, (0, 0, 20, 20), (20, 20))
    features_at(tokens, (0, 0, 20, 20), [(1, 2)])
    np.testing.assert_array_equal(tokens, before[0])
    np.testing.assert_array_equal(queries, before[1])


@pytest.mark.parametrize(
    ("n", "start", "stop", "expected"),
    [
        (5, -3.0, 9.0, [0, 1, 2, 3, 4]),
        (5, 0.0, 5.0, [0, 1, 2, 3, 4]),
        (5, 0.5, 4.5, [0, 1, 2, 3, 4]),
        (5, 0.51, 4.49, [1, 2, 3]),
        (5, 5.6, 9.0, []),
    ],
)
def test_pixels_within(n: int, start: float, stop: float, expected: list[int]) -> None:
    assert list(pixels_within(n, start, stop)) == expected


def test_errors() -> None:
    tokens = random_tokens((2, 2))
    for bad in (np.nan, np.inf):
        broken = tokens.copy()
        broken[1, 0, 3] = bad
        with pytest.raises(AnalysisError, match="not finite"):
            nearest_pixels(np.ones((1, 7)), broken, (0, 0, 4, 4), (4, 4))
        with pytest.raises(AnalysisError, match="not finite"):
            features_at(broken, (0, 0, 4, 4), [(0, 0)])
        with pytest.raises(AnalysisError, match="not finite"):
            nearest_pixels(np.full((1, 7), bad), tokens, (0, 0, 4, 4), (4, 4))
    with pytest.raises(AnalysisError, match="no pixel"):
        nearest_pixels(np.ones((1, 7)), tokens, (5, 5, 9, 9), (4, 4))
