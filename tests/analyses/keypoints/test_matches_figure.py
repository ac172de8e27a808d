from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from tests.figures.canvas import assert_readable, axes_named, words
from vitfeat.analyses.keypoints.figures import (
    HIT,
    MISS,
    SIDE,
    MatchRow,
    Pair,
    matches_figure,
    table,
)
from vitfeat.errors import AnalysisError
from vitfeat.figures import style

SIZES = ((64, 48), (40, 72))


def pair(category: str = "cat", n: int = 4, seed: int = 0) -> Pair:
    generator = np.random.default_rng(seed)

    def places(size: tuple[int, int]) -> np.ndarray:
        return generator.uniform(0, 1, (n, 2)) * (size[0] - 1, size[1] - 1)

    return Pair(
        category=category,
        source=f"JPEGImages/{category}/a.jpg",
        target=f"JPEGImages/{category}/b.jpg",
        pictures=(
            generator.integers(0, 256, (24, 32, 3), dtype=np.uint8),
            generator.integers(0, 256, (72, 40, 3), dtype=np.uint8),
        ),
        sizes=SIZES,
        numbers=[3 * i for i in range(n)],
        given=places(SIZES[0]),
        truth=places(SIZES[1]),
        found={2: places(SIZES[1]), 5: places(SIZES[1])},
        hits={2: np.arange(n) % 2 == 0, 5: np.arange(n) == 1},
    )


def drawn(*pairs: Pair, layers: tuple[int, ...] = (2, 5)) -> Figure:
    return matches_figure(pairs, layers, 0.1, title="DINO S/16", note="pairs, 2 of 28 pairs")


def connections(made: Figure) -> list[ConnectionPatch]:
    return [one for one in made.artists if isinstance(one, ConnectionPatch)]


def test_lines_lead_from_the_point_given_to_the_one_found() -> None:
    one = pair()
    made = drawn(one)
    lines = connections(made)
    assert len(lines) == 8
    for number, line in enumerate(lines):
        layer, point = ((2, 5)[number // 4], number % 4)
        source, target = (
            axes_named(made, f"{layer} cat {name}") for name in (one.source, one.target)
        )
        assert line.coords1 is source.transData
        assert line.coords2 is target.transData
        np.testing.assert_allclose(line.xy1, one.given[point])
        np.testing.assert_allclose(line.xy2, one.found[layer][point])


def test_hits_and_misses_differ_in_colour_and_dashes() -> None:
    one = pair()
    lines = connections(drawn(one, layers=(2,)))
    assert [to_hex(line.get_edgecolor()).upper() for line in lines] == [HIT, MISS, HIT, MISS]
    assert [line.get_linestyle() == "solid" for line in lines] == [True, False, True, False]


def test_rings_are_where_the_points_are() -> None:
    one = pair()
    made = drawn(one)
    for layer in (2, 5):
        ax = axes_named(made, f"{layer} cat {one.target}")
        rings = [line.get_xydata()[0] for line in ax.lines if line.get_markersize() > 4]
        np.testing.assert_allclose(rings, one.truth)


def test_dots_lead_from_what_was_missed_to_where_it_is() -> None:
    one = pair()
    made = drawn(one)
    for layer in (2, 5):
        ax = axes_named(made, f"{layer} cat {one.target}")
        errors = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 2]
        missed = np.flatnonzero(~one.hits[layer])
        expected = np.stack((one.found[layer], one.truth), axis=1)[missed]
        np.testing.assert_allclose(errors, expected)
    none = drawn(replace(one, hits={2: np.ones(4, bool), 5: np.ones(4, bool)}))
    assert "not found" not in words(none)
    assert "how far off" not in words(none)


def test_it_fits_on_a_page() -> None:
    """Texts of 6.5 points are at least 5.5 where a figure is printed 6.9 inches wide."""
    wide = replace(pair(), sizes=((64, 48), (72, 40)))
    assert drawn(wide, pair()).get_figwidth() < 6.9 * style.SMALL_SIZE / 5.5


def test_whole_numbers_are_centres_of_pixels() -> None:
    one = pair()
    ax = axes_named(drawn(one), f"2 cat {one.source}")
    (picture,) = ax.images
    # Drawn from a picture of half the size: places count the image's own pixels.
    assert picture.get_extent() == [-0.5, 63.5, 47.5, -0.5]
    np.testing.assert_array_equal(picture.get_array(), one.pictures[0])
    assert ax.get_xlim() == (-0.5, 63.5)
    assert ax.get_ylim() == (47.5, -0.5)


def test_images_keep_their_aspect() -> None:
    made = drawn(pair())
    FigureCanvasAgg(made).draw()
    for ax in made.axes:
        box = ax.get_window_extent()
        (x0, x1), (y1, y0) = ax.get_xlim(), ax.get_ylim()
        assert box.width / box.height == pytest.approx((x1 - x0) / (y1 - y0), rel=1e-3)
        assert max(box.width, box.height) / made.dpi == pytest.approx(SIDE, rel=1e-3)


def test_texts() -> None:
    made = drawn(pair("cat"), pair("a dog", seed=3))
    said = words(made)
    for text in (
        "Keypoints found in another image: DINO S/16",
        "pairs, 2 of 28 pairs",
        "Layer 2",
        "Layer 5",
        "cat: 2 of 4 found",
        "cat: 1 of 4",
        "a dog: 2 of 4",
        "at most 0.1 of the longer side of the object's box",
        "not found",
        "where the keypoint is",
        "how far off",
    ):
        assert text in said


@pytest.mark.parametrize(
    ("n", "category", "layers"),
    [
        (1, "cat", (5,)),
        (2, "a category of a long name that is wider than its images", (2, 5)),
        (4, "$x_1^2$ and $", (2, 5)),
    ],
)
def test_it_can_be_read(n: int, category: str, layers: tuple[int, ...]) -> None:
    pairs = [pair(category, seed=i) for i in range(n)]
    assert_readable(drawn(*pairs, layers=layers))


def test_many_points_and_none_found() -> None:
    many = pair(n=30)
    none = replace(many, hits={2: np.zeros(30, bool), 5: np.zeros(30, bool)}, category="dog")
    assert_readable(made := drawn(many, none))
    assert "dog: 0 of 30" in words(made)


def test_the_table_has_what_is_shown() -> None:
    one, other = pair(), pair("dog", n=2, seed=1)
    rows = list(table([one, other], (2, 5)))
    assert [(r.layer, r.category, r.point) for r in rows] == [
        *((2, "cat", 3 * i) for i in range(4)),
        *((2, "dog", 3 * i) for i in range(2)),
        *((5, "cat", 3 * i) for i in range(4)),
        *((5, "dog", 3 * i) for i in range(2)),
    ]
    last = rows[-1]
    assert last == MatchRow(
        5,
        "dog",
        other.source,
        other.target,
        3,
        *other.given[1],
        *other.truth[1],
        *other.found[5][1],
        1,
    )


def test_nothing_to_draw() -> None:
    with pytest.raises(AnalysisError, match="one pair or more"):
        drawn()
    with pytest.raises(AnalysisError, match="one layer or more"):
        drawn(pair(), layers=())


def test_nothing_global_is_changed() -> None:
    before = dict(mpl.rcParams)
    drawn(pair())
    assert dict(mpl.rcParams) == before
