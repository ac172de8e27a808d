from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tests.analyses.attention.made_maps import made_maps
from tests.figures.canvas import assert_readable, words
from vitfeat.analyses.attention import map_figures
from vitfeat.analyses.attention.map_figures import (
    MEAN_OFFSET,
    aligned_figure,
    aligned_levels,
    mean_offsets,
    offset_rows,
)
from vitfeat.analyses.attention.map_file import OFFSET_MAPS, AttentionMaps
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.models import Model

MODEL = Model("m", "Model B/16", "dino")


def one_hot(grid: tuple[int, int], offsets: list[list[tuple[int, int]]]) -> AttentionMaps:
    """Heads that put all attention on one offset (dy, dx) each, given by layer and head."""
    rows, columns = grid
    maps = made_maps(Tokens(grid), len(offsets), len(offsets[0]))
    aligned = np.zeros((len(offsets), len(offsets[0]), 2 * rows - 1, 2 * columns - 1), np.float32)
    for layer, heads in enumerate(offsets):
        for head, (dy, dx) in enumerate(heads):
            aligned[layer, head, rows - 1 + dy, columns - 1 + dx] = 1
    return replace(maps, arrays={"aligned": aligned, "aligned_by_coverage": aligned})


def drawn(ax: Axes, name: str) -> LineCollection:
    (found,) = (
        c for c in ax.collections if isinstance(c, LineCollection) and c.get_label() == name
    )
    return found


def test_mean_offsets_of_constant_offsets() -> None:
    given = [[(0, 0), (1, -2)], [(-2, 3), (2, 0)]]
    np.testing.assert_allclose(mean_offsets(one_hot((3, 4), given)), given)


def test_mean_offsets_are_those_of_the_definition() -> None:
    maps = made_maps(Tokens((2, 4)))
    found = mean_offsets(maps)
    aligned = maps.arrays["aligned"]
    for layer, head in np.ndindex(3, 2):
        down = right = 0.0
        for row in range(3):
            for column in range(7):
                down += float(aligned[layer, head, row, column]) * (row - 1)
                right += float(aligned[layer, head, row, column]) * (column - 3)
        np.testing.assert_allclose(found[layer, head], (down, right), rtol=1e-6)


def test_offsets_are_drawn_at_the_tokens_that_they_name() -> None:
    """The line ends in the middle of the pixels that have the whole attention."""
    given = [[(0, 0), (1, -2)], [(-2, 3), (2, 0)]]
    figure = aligned_figure(one_hot((3, 4), given), MODEL)
    ax = next(one for one in figure.axes if one.get_label() == "aligned")
    (image,) = ax.get_images()
    pixels = np.asarray(image.get_array()).sum(axis=-1)
    ends = [segment[-1] for segment in drawn(ax, "offsets").get_segments()]
    starts = [segment[0] for segment in drawn(ax, "offsets").get_segments()]
    scale = round((np.diff(ax.get_xticks())[0] - 2) / 7)
    for (x, y), (start_x, start_y), (dy, dx) in zip(
        ends, starts, [one for layer in given for one in layer], strict=True
    ):
        assert pixels[int(y), int(x)] > 600
        assert (x - start_x, y - start_y) == (dx * scale, dy * scale)
    for start, place in zip(starts, np.ndindex(2, 2), strict=True):
        assert start[0] == ax.get_xticks()[place[1]]
        assert start[1] == ax.get_yticks()[place[0]]
    by_coverage = next(one for one in figure.axes if one.get_label() == "aligned_by_coverage")
    assert {str(one.get_label()) for one in by_coverage.collections} == {"queries"}


def test_ticks_point_at_the_query_from_all_sides() -> None:
    figure = aligned_figure(one_hot((3, 4), [[(0, 0)]]), MODEL)
    ax = next(one for one in figure.axes if one.get_label() == "aligned")
    middle = ax.get_xticks()[0], ax.get_yticks()[0]
    segments = drawn(ax, "queries").get_segments()
    assert len(segments) == 4
    for (x, y), (x2, y2) in segments:
        assert (x == x2 == middle[0]) or (y == y2 == middle[1])
        # Inwards, and never as far as the middle.
        before = max(abs(x - middle[0]), abs(y - middle[1]))
        after = max(abs(x2 - middle[0]), abs(y2 - middle[1]))
        assert 0 < after < before


def scaled(values: NDArray[np.float32], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    found = np.empty(values.shape)
    for layer, head in np.ndindex(values.shape[:2]):
        top = max(values[layer, head][counted].tolist())
        found[layer, head] = np.minimum(values[layer, head].astype(np.float64) / top, 1)
    return found


def test_the_scale_by_coverage_leaves_rare_offsets_out() -> None:
    maps = made_maps(Tokens((4, 5)))
    every = np.ones((7, 9), dtype=bool)
    np.testing.assert_allclose(
        aligned_levels("aligned", maps), scaled(maps.arrays["aligned"], every)
    )
    queries = np.array(
        [[(4 - abs(dy)) * (5 - abs(dx)) for dx in range(-4, 5)] for dy in range(-3, 4)]
    )
    counted = queries >= 2
    assert not counted.all()
    spiked = np.array(maps.arrays["aligned_by_coverage"])
    spiked[..., 0, 0] = 5
    given = replace(maps, arrays={**maps.arrays, "aligned_by_coverage": spiked})
    found = aligned_levels("aligned_by_coverage", given)
    np.testing.assert_allclose(found, scaled(spiked, counted))
    assert (found[..., 0, 0] == 1).all()


def test_the_figure_says_what_it_is_of() -> None:
    said = words(aligned_figure(made_maps(Tokens((3, 4))), MODEL))
    for part in (
        "Model B/16: attention by offset",
        "digits, mean over 1,599 images",
        "2 patches up and down, 3 left and right",
        "count as zero",
        "mean offset from query",
    ):
        assert part in said
    excluded = made_maps(Tokens((3, 4)), null_rows="exclude")
    assert "are left out" in words(aligned_figure(excluded, MODEL))


@pytest.mark.parametrize(
    ("tokens", "layers", "heads"),
    [(Tokens((8, 8)), 6, 4), (Tokens((14, 14)), 12, 12), (Tokens((1, 1)), 1, 1)],
)
def test_nothing_is_cut_and_no_texts_overlap(tokens: Tokens, layers: int, heads: int) -> None:
    label = "vit_base_patch16." * 3 if heads == 1 else "M"
    figure = aligned_figure(made_maps(tokens, layers, heads), Model("m", label, "dino"))
    # As in the file: at fewer dots an inch, hinted letters are wider.
    figure.set_dpi(style.DPI)
    assert_readable(figure)


def test_rows_are_the_values_and_the_offsets() -> None:
    maps = made_maps(Tokens((2, 3)), first_layer=4)
    rows = list(offset_rows(maps))
    assert len(rows) == 2 * maps.arrays["aligned"].size + 6
    for row in rows:
        assert row.head is not None
        if row.map == MEAN_OFFSET:
            expected = mean_offsets(maps)[row.layer - 4, row.head]
            assert row.value is None
            np.testing.assert_allclose((row.dy, row.dx), expected, rtol=1e-6)
        else:
            values = maps.arrays[row.map][row.layer - 4, row.head]
            assert row.value == pytest.approx(values[int(row.dy) + 1, int(row.dx) + 2], rel=1e-6)


def test_rows_of_many_heads_are_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = made_maps(Tokens((2, 3)))
    monkeypatch.setattr(map_figures, "MAX_ROWS", 2 * maps.arrays["aligned"].size - 1)
    rows = list(offset_rows(maps))
    values = [row for row in rows if row.map != MEAN_OFFSET]
    assert len(values) == maps.arrays["aligned"].size
    for row in values:
        both = maps.arrays[row.map][row.layer, :, int(row.dy) + 1, int(row.dx) + 2]
        assert row.head is None
        assert row.value == pytest.approx(float(both[0] + both[1]) / 2, rel=1e-5)
    assert len(rows) - len(values) == 6


def test_the_mean_leaves_out_heads_without_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = made_maps(Tokens((2, 3)))
    for name in OFFSET_MAPS:
        maps.arrays[name][0, 1] = np.nan
        maps.arrays[name][1] = np.nan
    monkeypatch.setattr(map_figures, "MAX_ROWS", 0)
    for row in offset_rows(maps):
        if row.map == MEAN_OFFSET:
            continue
        values = maps.arrays[row.map][row.layer, :, int(row.dy) + 1, int(row.dx) + 2]
        assert row.value is not None
        if row.layer == 1:
            assert np.isnan(row.value)
        elif row.layer == 0:
            assert row.value == pytest.approx(float(values[0]), rel=1e-6)
    figure: Figure = aligned_figure(maps, MODEL)
    ax = next(one for one in figure.axes if one.get_label() == "aligned")
    assert len(drawn(ax, "offsets").get_segments()) == 3


def test_without_maps_it_fails_in_one_line() -> None:
    bare = replace(made_maps(Tokens((2, 3))), arrays={})
    with pytest.raises(AnalysisError, match="no aligned maps of m on digits: compute") as caught:
        aligned_figure(bare, MODEL)
    assert "\n" not in str(caught.value)
