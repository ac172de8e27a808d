from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.figures.canvas import assert_readable, words
from vitfeat.analyses.retrieval.figures import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    Result,
    Search,
    ranking_figure,
)
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.overlay import MARK_COLOUR


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


GRADES = ("easy", "", "junk", "hard", "")
ONE = Search(
    "all_souls_000013",
    noise(0, 60, 40),
    (0.25, 0.5, 0.75, 1.0),
    0.5,
    [Result(noise(i, 30 + 5 * i, 50), grade) for i, grade in enumerate(GRADES)],
)


def drawn(*searches: Search) -> Figure:
    return ranking_figure(searches, title="Retrieval: ViT", note="paris, layer 11, cls")


def frames(figure: Figure, row: int = 0) -> list[tuple[Rectangle, str]]:
    found = [patch for patch in figure.axes[row].patches if isinstance(patch, Rectangle)]
    return [(patch, to_hex(patch.get_edgecolor()).upper()) for patch in found]


def test_frames_say_what_the_results_are() -> None:
    colours = [colour for _, colour in frames(drawn(ONE))]
    assert colours == [MARK_COLOUR.upper(), POSITIVE, NEGATIVE, IGNORED, POSITIVE, NEGATIVE]
    texts = words(drawn(ONE))
    for text in ("1 easy", "2 negative", "3 junk", "4 hard", "5 negative", "AP 0.500"):
        assert text in texts


def test_positives_differ_from_others_in_more_than_colour() -> None:
    widths = [patch.get_linewidth() for patch, _ in frames(drawn(ONE))[1:]]
    assert widths[0] == widths[3] > 2 * max(widths[1], widths[2], widths[4])


def test_the_legend_has_the_frames_that_are_drawn() -> None:
    assert "positive: easy or hard negative junk: neither" in words(drawn(ONE))
    clean = [Result(noise(1, 30, 50), grade) for grade in ("hard", "hard")]
    said = words(drawn(replace(ONE, results=clean)))
    assert "positive: easy or hard" in said
    assert "negative" not in said
    assert "junk: neither" not in said


def test_it_fits_on_a_page() -> None:
    """Texts of 6.5 points are at least 5.5 where a figure is printed 6.9 inches wide."""
    eight = replace(ONE, results=[Result(noise(i, 30, 50), "") for i in range(8)])
    assert drawn(eight).get_figwidth() < 6.9 * style.SMALL_SIZE / 5.5


def test_pictures_keep_their_aspect_and_frames_are_around_them() -> None:
    figure = drawn(ONE)
    ax = figure.axes[0]
    per_unit = ax.bbox.width / abs(np.diff(ax.get_xlim())[0])
    assert per_unit == pytest.approx(ax.bbox.height / abs(np.diff(ax.get_ylim())[0]))
    shown = [ONE.picture, *(result.picture for result in ONE.results)]
    for image, picture in zip(ax.images, shown, strict=True):
        left, right, bottom, top = image.get_extent()
        aspect = (right - left) / (bottom - top)
        assert aspect == pytest.approx(picture.shape[1] / picture.shape[0])
        np.testing.assert_array_equal(image.get_array(), picture)
    for image, (frame, _) in zip(ax.images[1:], frames(figure)[1:], strict=True):
        left, right, bottom, top = image.get_extent()
        assert frame.get_bbox().bounds == pytest.approx((left, top, right - left, bottom - top))


def test_the_box_is_where_the_landmark_is() -> None:
    figure = drawn(ONE)
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    box = frames(figure)[0][0].get_bbox()
    assert box.x0 == pytest.approx(left + 0.25 * (right - left))
    assert box.x1 == pytest.approx(left + 0.75 * (right - left))
    assert box.y0 == pytest.approx(top + 0.5 * (bottom - top))
    assert box.y1 == pytest.approx(bottom)
    whole = drawn(replace(ONE, box=None))
    assert len(frames(whole)) == 5
    assert "box of the query" in words(figure)
    assert "box of the query" not in words(whole)


def test_large_pictures_are_drawn_in_no_more_pixels_than_are_seen() -> None:
    figure = drawn(replace(ONE, picture=noise(1, 300, 900)))
    height, width, _ = figure.axes[0].images[0].get_array().shape
    assert width < 200
    assert width / height == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_texts_can_be_read(n: int) -> None:
    searches = [
        replace(ONE, name=f"{'a_long_$name$_of' * (i % 3)}_landmark_{i}", average_precision=None)
        for i in range(n)
    ]
    figure = drawn(*searches)
    assert_readable(figure)
    assert len(figure.axes) == n
    assert "no positive" in words(figure)


def test_fewer_results_than_others_and_none() -> None:
    figure = drawn(ONE, replace(ONE, results=ONE.results[:2]), replace(ONE, results=[]))
    assert [len(ax.images) for ax in figure.axes] == [6, 3, 1]
    assert_readable(figure)


def test_nothing_to_draw() -> None:
    with pytest.raises(AnalysisError, match="needs a query"):
        drawn()
