from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.analyses.attention.softmax import attention
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.compute import positions
from vitfeat.analyses.attention_maps.grids import KINDS, Grid, grid, image_maps
from vitfeat.analyses.attention_maps.map_blocks import (
    BAR,
    BAR_GAP,
    GAP,
    LEAD_GAP,
    block,
    single,
)
from vitfeat.analyses.attention_maps.sheets import CELL, figure
from vitfeat.figures import overlay, style

NAMES = ("cls", "top", "1,1", "mean")


def shown(
    kind: str,
    tokens: Tokens = Tokens((2, 3)),  # noqa: B008
    patch: int = 8,
    caption: str = "a.png",
    layers: int = 3,
    heads: int = 2,
) -> Grid:
    side = (tokens.grid[0] * patch, tokens.grid[1] * patch)
    picture = np.random.default_rng(0).integers(0, 256, (*side, 3), dtype=np.uint8)
    given = attention(layers, heads, tokens=tokens, seed=0)
    chosen = positions([n for n in NAMES if n != "cls" or tokens.has_cls], tokens)
    around = {"picture": picture, "caption": caption}
    of = image_maps("0.png", lambda p: given[p], range(layers), tokens, chosen, **around)
    return grid(kind, of)


def draw(one: Grid, **more: object) -> Figure:
    return figure(one, title="Model", note="d", **more)  # type: ignore[arg-type]


def own(one: Grid, percentile: float = overlay.PERCENTILE) -> np.ndarray:
    return overlay.ends(one.maps.spatial, percentile)


def picture_of(drawn: Figure) -> Axes:
    (found,) = (ax for ax in drawn.axes if str(ax.get_label()).endswith(".png"))
    return found


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [Tokens((2, 3)), Tokens((3, 2), has_cls=False)], ids=str)
def test_every_map_is_at_its_place(kind: str, tokens: Tokens) -> None:
    """Cut each map out of the block and hold it to the overlay of that map alone."""
    one = shown(kind, tokens)
    size = one.of.crop
    drawn = block(one, size, own(one))
    above, left = int(kind == "head_position"), int(kind != "head_position")
    high = size[0] + GAP + (BAR_GAP + BAR if tokens.has_cls else 0)
    for r, line in enumerate(one.cells):
        for c, cell in enumerate(line):
            values = one.maps[r, c].spatial
            top = np.percentile(values, overlay.PERCENTILE)
            right = overlay.overlay(one.of.picture, values / top)
            patches = overlay.Patches(tokens.grid, size, size)
            if cell.position.token is not None:
                overlay.mark(right, patches, cell.position.token)
            top = above * (size[0] + LEAD_GAP) + r * high
            start = left * (size[1] + LEAD_GAP) + c * (size[1] + GAP)
            found = drawn.pixels[top : top + size[0], start : start + size[1]]
            np.testing.assert_array_equal(found, right)
            assert drawn.rows[r] == top + size[0] / 2
            assert drawn.columns[c] == start + size[1] / 2
            if tokens.has_cls:
                bar = drawn.pixels[top + size[0] + BAR_GAP, start : start + size[1]]
                filled = (bar == overlay._rgb(overlay.BAR_COLOURS["cls"])).all(-1).sum()
                assert filled == round(float(one.maps.on_cls[r, c]) * size[1])


def test_the_picture_stands_beside_the_maps_with_the_query_in_a_box() -> None:
    one = shown("position_layer")
    drawn = block(one, one.of.crop, own(one))
    height, width = one.of.crop
    np.testing.assert_array_equal(drawn.pixels[:height, :width], one.of.picture)  # CLS: no box
    step = height + BAR_GAP + BAR + GAP
    marked = drawn.pixels[step : step + height, :width]
    box = overlay.Patches((2, 3), one.of.crop, one.of.crop).box((0, 1))
    np.testing.assert_array_equal(marked[box], one.of.picture[box])
    assert (marked != one.of.picture).any()


@pytest.mark.parametrize("percentile", [70.0, 100.0])
def test_a_common_scale_is_one_for_all_maps(percentile: float) -> None:
    one = shown("head_layer")
    values = one.maps.spatial
    top = float(np.percentile(values, percentile))
    drawn = draw(one, scale="common", percentile=percentile)
    found = np.asarray(picture_of(drawn).get_images()[0].get_array())
    size = overlay.drawn_size(one.of.crop, (2, 3), CELL * style.DPI)
    large = overlay.resized(one.of.picture, size)
    for c in range(3):
        left = (c + 1) * (size[1] + GAP) + LEAD_GAP - GAP
        right = overlay.overlay(large, values[0, c] / top, one.of.crop)
        np.testing.assert_array_equal(found[: size[0], left : left + size[1]], right)
    (bar,) = (ax for ax in drawn.axes if ax.get_label() == "colour bar")
    assert bar.get_xlim() == (0, pytest.approx(top))
    assert f"{top:.3g}" in texts(drawn)
    assert overlay.said_of_scale(percentile, common=True) in texts(drawn)


def test_the_figure_says_where_the_scale_of_each_map_ends() -> None:
    found = texts(draw(shown("head_layer"), percentile=95))
    assert {"percentile 95", overlay.said_of_scale(95)} <= set(found)
    assert "the maximum" in texts(draw(shown("head_layer"), percentile=100))


def test_maps_of_zeros_are_drawn_as_zeros() -> None:
    tokens = Tokens((2, 3))
    given = np.zeros((1, 2, 7, 7))
    given[..., 0] = 1
    chosen = positions(["cls", "mean"], tokens)
    picture = np.full((16, 24, 3), 100, dtype=np.uint8)
    none = image_maps(
        "a.png", lambda p: given[p], [0], tokens, chosen, picture=picture, renormalised=True
    )
    one = grid("head_layer", none)
    for scale in ("own", "common"):
        FigureCanvasAgg(draw(one, scale=scale)).draw()
    bare = overlay.overlay(picture, np.zeros((2, 3)))
    np.testing.assert_array_equal(block(one, (16, 24), own(one)).pixels[:16, -24:], bare)


def test_a_figure_shows_the_layers_that_are_chosen_and_says_of_how_many() -> None:
    for kind in ("position_layer", "head_layer"):
        whole = shown(kind, layers=12)
        some = whole.of_layers([0, 4, 11])
        drawn = draw(some)
        assert [t.get_text() for t in picture_of(drawn).get_xticklabels()] == ["0", "4", "11"]
        assert any("3 of 12 layers" in text for text in texts(drawn))
        assert not any("of 12 layers" in text for text in texts(draw(whole)))
        for at, layer in enumerate((0, 4, 11)):
            for line in range(len(whole.cells)):
                assert some.cells[line][at] == whole.cells[line][layer]
                np.testing.assert_array_equal(
                    some.maps[line, at].spatial, whole.maps[line, layer].spatial
                )
    one_layer = shown("head_position", layers=12)
    assert one_layer.of_layers([0]) is one_layer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("side", "grid_side"), [(224, 14), (224, 16), (518, 37), (32, 8)])
def test_maps_of_six_layers_are_large_on_a_page(kind: str, side: int, grid_side: int) -> None:
    """A map is a tenth of the page's width or more, for networks as deep and wide as ViT-B."""
    tokens = Tokens((grid_side, grid_side))
    names = ["cls", "top", "left", "centre", "right", "bottom", "mean"]
    given = np.full((6, 12, tokens.n_tokens, tokens.n_tokens), 1 / tokens.n_tokens)
    chosen = positions(names, tokens)
    picture = np.zeros((side, side, 3), np.uint8)
    of = image_maps("a.png", lambda p: given[p], range(6), tokens, chosen, picture=picture)
    one = grid(kind, of)
    drawn = draw(one)
    width, height = drawn.get_size_inches()
    assert width <= style.PAGE_WIDTH * 1.04
    assert height < 13.5  # tokens have whole pixels
    # Pixels of a map on a page that is 1,000 of them wide.
    across = len(one.cells[0]) + (kind != "head_position")
    pixels = np.asarray(picture_of(drawn).get_images()[0].get_array()).shape[1]
    assert pixels / across * 1000 / (width * style.DPI) >= 100


def test_labels_say_what_goes_down_and_across() -> None:
    ax = picture_of(draw(shown("position_layer")))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["CLS", "top", "1,1", "mean", "rollout"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2"]
    ax = picture_of(draw(shown("head_position")))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["mean", "0", "1"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["CLS", "top", "1,1", "mean"]
    found = texts(draw(shown("head_layer")))
    assert "Attention maps, head × layer: Model" in found
    assert "d, query CLS" in found
    assert "d, layer 2" in texts(draw(shown("head_position")))


def test_the_legend_explains_what_the_model_has() -> None:
    plain = texts(draw(shown("position_layer", Tokens((3, 3), has_cls=False))))
    assert "on CLS" not in plain
    assert "on registers" not in plain
    assert "query token" in plain
    assert not any("Bar below" in text for text in plain)
    more = texts(draw(shown("head_layer", Tokens((2, 3), n_registers=2))))
    assert {"on CLS", "on registers"} <= set(more)
    assert "query token" not in more  # of the CLS query there is no box


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "caption", ["a folder/with $x_1$ long names/" + "for images " * 5 + ".png (a class)", "ü.png"]
)
@pytest.mark.parametrize(
    "given",
    [
        {"patch": 16},
        {"tokens": Tokens((5, 2)), "heads": 12, "layers": 12},
        {"tokens": Tokens((5, 2)), "heads": 1, "layers": 1},
        {"tokens": Tokens((4, 4)), "heads": 16, "layers": 24},
    ],
    ids=str,
)
def test_nothing_overlaps_or_leaves_the_figure(
    kind: str, caption: str, given: dict[str, object]
) -> None:
    drawn = draw(shown(kind, caption=caption, **given))  # type: ignore[arg-type]
    # Letters are as wide as in the file.
    drawn.set_dpi(style.DPI)
    renderer = FigureCanvasAgg(drawn).get_renderer()
    drawn.draw_without_rendering()
    width, height = drawn.get_size_inches() * drawn.dpi
    boxes = []
    for text in drawn.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            assert -1 <= box.x0 <= box.x1 <= width + 1, text.get_text()
            assert -1 <= box.y0 <= box.y1 <= height + 1, text.get_text()
            boxes.append((text.get_text(), box.shrunk(0.9, 0.7)))
    for i, (a, first) in enumerate(boxes):
        for b, second in boxes[i + 1 :]:
            assert not first.overlaps(second), (a, b)
    areas = [ax.get_window_extent(renderer) for ax in drawn.axes]
    for i, first in enumerate(areas):
        for second in areas[i + 1 :]:
            assert not first.shrunk(0.99, 0.99).overlaps(second)
        for text, box in boxes:
            inside = box.shrunk(0.8, 0.8).overlaps(first.shrunk(0.99, 0.99))
            assert not inside, text


def test_a_single_map_is_as_large_as_the_crop_or_a_multiple() -> None:
    found = shown("head_layer").of
    top = found.positions[1]
    for patch, factor in ((8, 9), (64, 1), (100, 1)):
        picture = np.random.default_rng(0).integers(
            0, 256, (2 * patch, 3 * patch, 3), dtype=np.uint8
        )
        values = found.maps[1, 1, 1].spatial
        drawn = single(found.maps[1, 1, 1], picture, top, overlay.ends(values, 90), smooth=False)
        assert drawn.shape == (2 * patch * factor, 3 * patch * factor, 3)
        large = picture.repeat(factor, 0).repeat(factor, 1)
        right = overlay.overlay(large, values / np.percentile(values, 90))
        size = (large.shape[0], large.shape[1])
        overlay.mark(right, overlay.Patches((2, 3), size, size), (0, 1))
        np.testing.assert_array_equal(drawn, right)
