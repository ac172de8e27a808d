from __future__ import annotations

import math

import numpy as np
import pytest

from tests.analyses.video import reference_davis
from vitfeat.analyses.video.segmentation_scores import boundary_measure, n_near, outline, tolerance


def square(top: int, left: int, side: int, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def blob(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Ellipses, some cut off by the frame, with holes and specks."""
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, dtype=bool)
    for _ in range(generator.integers(0, 4)):
        y, x = (generator.uniform(-2, side + 2) for side in shape)
        height, width = generator.uniform(0.5, max(shape) / 3, 2)
        mask ^= ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
    if generator.random() < 0.3:
        mask ^= generator.random(shape) < 0.02
    return mask


def test_the_outline_is_up_and_left_of_a_square() -> None:
    marked = outline(square(2, 3, 2, (6, 7)))
    picture = ["".join(".#"[int(pixel)] for pixel in row) for row in marked]
    assert picture == [
        ".......",
        "..###..",
        "..#.#..",
        "..###..",
        ".......",
        ".......",
    ]


def test_there_is_no_outline_along_the_edge_of_the_frame() -> None:
    assert not outline(np.ones((4, 5), dtype=bool)).any()
    corner = outline(square(2, 3, 9, (4, 5)))
    assert sorted(zip(*map(list, corner.nonzero()), strict=True)) == [
        (1, 2),
        (1, 3),
        (1, 4),
        (2, 2),
        (3, 2),
    ]
    last = np.zeros((3, 3), dtype=bool)
    last[2, 2] = True
    # The last pixel has nothing to be compared with, its neighbours have it.
    assert outline(last).tolist() == [[False] * 3, [False, True, True], [False, True, False]]


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [((480, 854), 8), ((480, 910), 9), ((1080, 1920), 18), ((300, 400), 4), ((48, 80), 1)],
)
def test_tolerance(shape: tuple[int, int], pixels: int) -> None:
    assert tolerance(shape) == pixels


def test_shifted_within_and_beyond_the_tolerance() -> None:
    shape = (300, 400)  # a diagonal of 500, so 4 pixels
    true = square(100, 100, 50, shape)
    for shift in range(5):
        assert boundary_measure(true, square(100 + shift, 100, 50, shape)) == 1
    # Both outlines have 200 pixels. The moved one starts 5 rows below: within 4 pixels are rows 100
    # to 148 of the true one's sides, 5 pixels at both ends of its lower edge, none of its upper.
    assert boundary_measure(true, square(105, 100, 50, shape)) == (2 * 49 + 2 * 5) / 200
    assert boundary_measure(true, square(100, 200, 50, shape)) == 0


def test_by_hand() -> None:
    # The outline of a square of side 2 has 8 pixels, the diagonal of 10 x 10 gives 1 pixel.
    true, shape = square(2, 2, 2, (10, 10)), (10, 10)
    # A mask of one pixel has an outline of 4: rows and columns 1 and 2 of the other's 1 to 3.
    single = square(2, 2, 1, shape)
    # (1,1), (1,2), (2,1) are on the other, (2,2) is one below (1,2): precision 1. Of the 8, all are
    # within one pixel but (3,3), sqrt(2) from (2,2), and (1,3), (2,3), (3,1), (3,2) are within one.
    precision, recall = 1.0, 7 / 8
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_measure(true, single) == expected
    # Roles change places, the harmonic mean does not.
    assert boundary_measure(single, true) == expected


def test_masks_without_an_outline() -> None:
    empty, some = np.zeros((20, 30), dtype=bool), square(5, 5, 4, (20, 30))
    full = np.ones((20, 30), dtype=bool)
    assert boundary_measure(empty, empty) == 1
    assert boundary_measure(empty, some) == 0
    assert boundary_measure(some, empty) == 0
    # A mask of the whole frame has no outline either.
    assert boundary_measure(full, full) == 1
    assert boundary_measure(empty, full) == 1
    assert boundary_measure(full, some) == 0


def test_equal_to_the_definition_to_the_last_digit() -> None:
    generator = np.random.default_rng(0)
    kinds = set()
    for _ in range(150):
        shape = tuple(int(side) for side in generator.integers(1, 40, 2))
        if generator.random() < 0.15:
            shape = (int(generator.integers(3, 12)), 400)  # four pixels
        true = blob(generator, shape)
        moved = np.roll(true, tuple(generator.integers(-3, 4, 2)), (0, 1))
        guess = moved if generator.random() < 0.5 else blob(generator, shape)
        found = boundary_measure(true, guess)
        assert found == reference_davis.boundary(true, guess)
        kinds.add("between" if 0 < found < 1 else found)
    assert kinds == {0, 1, "between"}


@pytest.mark.parametrize("radius", [1, 2, 3, 4, 5, 8, 9, 18])
def test_near_is_a_disk(radius: int) -> None:
    marked = np.zeros((41, 43), dtype=bool)
    marked[20, 21] = True
    rows, columns = np.indices(marked.shape)
    for y, x in zip(rows.ravel(), columns.ravel(), strict=True):
        place = (np.array([y]), np.array([x]))
        near = math.hypot(y - 20, x - 21) <= radius
        assert n_near(place, marked, radius) == near
