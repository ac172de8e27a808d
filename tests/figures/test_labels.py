from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.isotonic import IsotonicRegression

from tests.figures.canvas import assert_readable
from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.labels import End, end_labels, point_labels, spread, wrapped


@pytest.mark.parametrize("seed", range(20))
def test_positions_move_apart_as_little_as_possible(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted, gap = rng.uniform(0, 1, rng.integers(1, 12)), 0.13
    found = spread(list(wanted), gap, -10, 10)
    order = np.argsort(wanted)
    steps = gap * np.arange(len(wanted))
    # Least squares under an order is isotonic regression.
    expected = IsotonicRegression().fit_transform(steps, wanted[order] - steps) + steps
    np.testing.assert_allclose(found[order], expected, atol=1e-12)


def test_positions_keep_their_gap_and_their_bounds() -> None:
    found = spread([0.5, 0.5, 0.5, 1.4], 0.25, 0, 1)
    np.testing.assert_allclose(found, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(spread([-3.0, 0.2], 0.1, 0, 1), [0, 0.2])
    assert spread([], 0.1, 0, 1).shape == (0,)
    # Too many for the bounds: around their middle.
    np.testing.assert_allclose(spread([0.0, 0, 0], 1, 0, 1), [-0.5, 0.5, 1.5])


def test_far_positions_stay_where_they_are() -> None:
    np.testing.assert_allclose(spread([0.9, 0.1, 0.5], 0.1, 0, 1), [0.9, 0.1, 0.5])


def test_texts_are_broken_at_spaces_before_anything_else() -> None:
    text = "Spatial-to-register attention (share)"
    lines = wrapped(text, 1.0)
    assert " ".join(lines) == text
    assert all(text_width(line, style.SMALL_SIZE) <= 1.0 for line in lines)
    assert wrapped(text, 9) == [text]
    assert wrapped("", 1) == []


def test_units_in_brackets_stay_together_where_they_fit() -> None:
    text = "Attention distance (image edges) of all (a, b)."
    assert wrapped(text, 0.75) == ["Attention", "distance", "(image edges)", "of all (a, b)."]
    assert "(image" in wrapped(text, 0.6)
    assert wrapped("f(a b) (c", 0.35) == ["f(a b)", "(c"]


def test_bold_texts_are_broken_by_their_own_width() -> None:
    text = "Supervised S/32"
    width = text_width(text, style.SMALL_SIZE, "bold")
    assert wrapped(text, width) == [text]
    assert wrapped(text, width, weight="bold") == ["Supervised", "S/32"]


def test_wide_words_are_broken_where_they_may_be() -> None:
    assert wrapped("Spatial-to-register attention", 0.6) == ["Spatial-to-", "register", "attention"]
    lines = wrapped("abcdefghijklmnopqrstuvwxyz", 0.4)
    assert "".join(lines) == "abcdefghijklmnopqrstuvwxyz"
    assert all(text_width(line, style.SMALL_SIZE) <= 0.4 for line in lines)


def test_labels_of_ends_stand_in_the_order_of_the_ends() -> None:
    with style.settings():
        figure = Figure(figsize=(4, 2))
        ax = figure.add_axes((0.1, 0.15, 0.6, 0.75))
        ax.set_xlim(0, 5)
        ax.set_yscale("log")
        ax.set_ylim(0.1, 100)
        ends = [End(5, y, f"model {y}", "#000000") for y in (1.0, 1.01, 1.02, 50, 0.99)]
        end_labels(ax, [*ends, End(5, np.nan, "nothing", "#000000")])
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    ordered = sorted(heights, key=lambda name: heights[name])
    assert ordered == ["nothing", "model 0.99", "model 1.0", "model 1.01", "model 1.02", "model 50"]
    # 50 on a logarithmic axis from 0.1 to 100.
    assert heights["model 50"] == pytest.approx(np.log10(500) / 3, abs=0.02)
    assert_readable(figure)
    (leaders,) = ax.collections
    assert len(leaders.get_segments()) == 5


def boxes_of(
    points: list[tuple[float, float]], widths: list[float], box: tuple[float, float]
) -> list[tuple[float, float, float, float]]:
    found = point_labels(points, widths, 0.1, box)
    assert None not in found
    return [
        (one.x, one.y, one.x + width, one.y + 0.1)
        for one, width in zip(found, widths, strict=True)
        if one is not None
    ]


@pytest.mark.parametrize("seed", range(10))
def test_labels_of_points_cover_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box = (2.0, 1.75)
    points = [(float(x), float(y)) for x, y in rng.uniform(0.3, 1.4, (9, 2))]
    points[1] = points[0]
    found = boxes_of(points, [float(w) for w in rng.uniform(0.2, 0.6, 9)], box)
    for index, (left, bottom, right, top) in enumerate(found):
        assert left >= 0
        assert bottom >= 0
        assert right <= box[0]
        assert top <= box[1]
        for x, y in points:
            assert not (left < x < right and bottom < y < top)
        for other_left, other_bottom, other_right, other_top in found[:index]:
            apart = right <= other_left or other_right <= left
            assert apart or top <= other_bottom or other_top <= bottom


def test_a_lonely_point_has_its_label_at_its_right_without_leader() -> None:
    (placed,) = point_labels([(0.5, 0.5)], [0.4], 0.1, (2, 2))
    assert placed is not None
    assert placed.x > 0.5
    assert not placed.leads
    # At the right edge, there is no room but at the left.
    (placed,) = point_labels([(1.98, 0.5)], [0.4], 0.1, (2, 2))
    assert placed is not None
    assert placed.x + 0.4 < 1.98


def test_no_place_is_said() -> None:
    assert point_labels([(0.1, 0.1)], [3.0], 0.1, (2, 2)) == [None]
    assert point_labels([], [], 0.1, (2, 2)) == []
