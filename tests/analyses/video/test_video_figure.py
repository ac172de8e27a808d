from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, words
from vitfeat.analyses.video.figures import (
    ALPHA,
    StripRow,
    chosen_frames,
    frames_figure,
    middles,
    painted,
)
from vitfeat.data.masks import palette
from vitfeat.errors import AnalysisError
from vitfeat.figures import style


def mask(height: int, width: int, left: int, number: int = 1) -> np.ndarray:
    found = np.zeros((height, width), dtype=np.uint8)
    found[2:6, left : left + 4] = number
    return found


def strip(
    caption: str, height: int, width: int, numbers: list[int], truth: bool = True
) -> StripRow:
    masks = [mask(height, width, 1 + place) for place in range(len(numbers))]
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    true = [mask(height, width, 2 + place, 2) for place in range(len(numbers))]
    return StripRow(
        caption, numbers, [frame] * len(numbers), masks, true if truth else [None] * len(numbers)
    )


def pictures(figure: Figure, row: int) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[row].images]


@pytest.mark.parametrize(
    ("n", "most", "expected"),
    [
        (1, 4, [0]),
        (4, 4, [0, 1, 2, 3]),
        (5, 4, [0, 1, 3, 4]),
        (8, 6, [0, 1, 3, 4, 6, 7]),
        (9, 3, [0, 4, 8]),
        (100, 2, [0, 99]),
    ],
)
def test_spread(n: int, most: int, expected: list[int]) -> None:
    assert chosen_frames(n, most) == expected


@pytest.mark.parametrize("n", range(1, 40))
def test_spread_is_even(n: int) -> None:
    for most in range(2, 9):
        chosen = chosen_frames(n, most)
        assert len(chosen) == min(n, most)
        assert (chosen[0], chosen[-1]) == (0, n - 1)
        steps = set(np.diff(chosen).tolist())
        assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_predicted_objects_have_the_colours_of_davis() -> None:
    frame = np.full((8, 10, 3), 100, dtype=np.uint8)
    for number in (1, 2, 7):
        found = painted(frame, mask(8, 10, 3, number), None, (8, 10))
        colour = np.rint(ALPHA * palette()[number] + (1 - ALPHA) * 100)
        inside = mask(8, 10, 3) == 1
        assert (found[inside] == colour).all()
        assert (found[~inside] == 100).all()


def test_void_is_not_painted() -> None:
    frame = np.full((8, 10, 3), 100, dtype=np.uint8)
    void = mask(8, 10, 3, 255)
    assert (painted(frame, void, void, (8, 10)) == 100).all()


def test_lines_are_where_true_objects_end() -> None:
    frame, nothing = np.full((8, 10, 3), 100, np.uint8), np.zeros((8, 10), np.uint8)
    found = painted(frame, nothing, mask(8, 10, 3), (8, 10))
    # The mask is rows 2 to 5 and columns 3 to 6.
    inner, line, dark = found[3:5, 4:6], found[2, 3:7], found[1, 3:7]
    assert (inner == 100).all()
    assert (line == (255, 64, 64)).all()
    assert (dark == 0).all()
    assert (found[2:6, 3] == (255, 64, 64)).all()
    assert (found[0] == 100).all()
    assert (found[:, 8:] == 100).all()


def test_the_middle_of_an_object_is_furthest_from_its_ends() -> None:
    predicted = np.zeros((9, 12), np.uint8)
    predicted[1:6, 2:7] = 3
    predicted[0, 11] = 7
    predicted[8] = 255
    assert middles(predicted) == {3: (3.5, 4.5, 2.5), 7: (0.5, 11.5, 0.5)}
    # Beyond the edge there is nothing: a frame full of an object has its middle in the middle.
    assert middles(np.ones((3, 5), np.uint8))[1][::2] == (1.5, 1.5)
    assert middles(np.full((4, 4), 255, np.uint8)) == {}


def test_objects_have_their_numbers_where_there_is_room() -> None:
    large = np.zeros((40, 60), np.uint8)
    large[4:30, 10:50] = 2
    large[35, 3] = 5
    frame = np.zeros((40, 60, 3), np.uint8)
    figure = frames_figure([StripRow("x", [0], [frame], [large], [None])], "t", "n")
    assert_readable(figure)
    (number,) = (text for text in figure.axes[0].texts if text.get_text() in "25")
    assert number.get_text() == "2"
    x, y = number.get_position()
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert 10 < (x - left) / (right - left) * 60 < 50
    assert 4 < (top - y) / (top - bottom) * 40 < 30


def test_masks_grow_with_the_frame() -> None:
    frame = np.full((8, 10, 3), 100, dtype=np.uint8)
    large = painted(frame, mask(8, 10, 3), None, (24, 30))
    np.testing.assert_array_equal(
        large, painted(frame, mask(8, 10, 3), None, (8, 10)).repeat(3, 0).repeat(3, 1)
    )
    assert painted(frame, mask(8, 10, 3), mask(8, 10, 4), (4, 5)).shape == (4, 5, 3)


def test_inputs_stay_as_they_are() -> None:
    row = strip("bear", 12, 20, [0, 3])
    before = [part.copy() for part in (row.frames[0], row.predicted[1], row.truth[1])]
    frames_figure([row], "t", "n")
    for part, old in zip((row.frames[0], row.predicted[1], row.truth[1]), before, strict=True):
        np.testing.assert_array_equal(part, old)


def test_rows_of_all_shapes() -> None:
    rows = [
        strip("bear: J&F 71.2", 12, 20, [0, 3, 7, 9, 12]),
        strip("cows_$x$: J&F 8.0", 20, 12, [0, 1, 2]),
        strip("a sequence without true masks", 9, 9, [4], truth=False),
    ]
    figure = frames_figure(rows, "Objects followed: some model, layer 5", "a dataset")
    assert_readable(figure)
    text = words(figure)
    for part in ("frame 0, given", "frame 12", "frame 4", "cows_$x$", "object 1", "object 2"):
        assert part in text
    assert [len(pictures(figure, row)) for row in range(3)] == [5, 3, 1]
    # All frames are equally high, and no frame is squeezed.
    assert len({picture.shape[0] for row in range(3) for picture in pictures(figure, row)}) == 1
    for row, aspect in enumerate((20 / 12, 12 / 20, 1)):
        height, width, _ = pictures(figure, row)[0].shape
        assert width / height == pytest.approx(aspect, rel=0.01)
        ax = figure.axes[row]
        left, right, bottom, top = ax.images[0].get_extent()
        box = ax.get_window_extent()
        drawn = (right - left) / np.diff(ax.get_xlim())[0] * box.width
        high = (top - bottom) / np.diff(ax.get_ylim())[0] * box.height
        assert drawn / high == pytest.approx(aspect, rel=1e-6)
    order = [image.get_extent()[0] for image in figure.axes[0].images]
    assert order == sorted(order)


def test_without_true_masks_no_outline_is_explained() -> None:
    assert "true" not in words(frames_figure([strip("x", 9, 9, [0], truth=False)], "t", "n"))
    assert "true object" in words(frames_figure([strip("x", 9, 9, [0])], "t", "n"))


def test_many_wide_frames_get_smaller() -> None:
    figure = frames_figure([strip("wide", 10, 40, list(range(12)))], "t", "n")
    # Texts of 6.5 points are at least 5.5 where it is printed 6.9 inches wide.
    assert figure.get_figwidth() < 6.9 * style.SMALL_SIZE / 5.5
    assert_readable(figure)


def test_above_narrow_frames_are_numbers_alone() -> None:
    figure = frames_figure([strip("narrow", 40, 10, [0, 3, 12])], "t", "n")
    assert_readable(figure)
    assert "frame" not in words(figure)
    wider = frames_figure([strip("wider", 20, 10, [0, 3, 12])], "t", "n")
    assert_readable(wider)
    for made, first in ((figure, "0"), (wider, "0, given")):
        above = [text.get_text() for text in made.axes[0].texts if text.get_va() == "bottom"]
        assert above[:3] == [first, "3", "12"]


def test_a_long_caption_is_not_cut() -> None:
    assert_readable(frames_figure([strip("a long name, " * 9, 20, 10, [0])], "t", "n"))


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        style.save(frames_figure([strip("x", 9, 9, [0])], "t", "n"), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_errors() -> None:
    with pytest.raises(AnalysisError, match="no sequence to draw"):
        frames_figure([], "t", "n")
    good = strip("bear", 12, 20, [0, 3])
    for bad in (
        StripRow("bear", [0], good.frames, good.predicted, good.truth),
        StripRow("bear", [0, 3], good.frames, [mask(11, 20, 1)] * 2, good.truth),
        StripRow("bear", [], [], [], []),
    ):
        with pytest.raises(AnalysisError, match="row 'bear': every frame needs"):
            frames_figure([bad], "t", "n")
