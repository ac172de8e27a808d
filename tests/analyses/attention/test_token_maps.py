from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.analyses.attention.made_maps import made_maps
from tests.figures.canvas import assert_readable, words
from vitfeat.analyses.attention import map_figures
from vitfeat.analyses.attention.map_figures import (
    TokenRow,
    class_deviation,
    common_limit,
    common_scale,
    own_scale,
    token_panels,
    token_rows,
)
from vitfeat.analyses.attention.map_file import CLASS_DEVIATION, TOKEN_MAPS, AttentionMaps
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.errors import AnalysisError
from vitfeat.figures import overlay, style
from vitfeat.figures.models import Model

MODEL = Model("m", "Model B/16", "dino")
KINDS = [Tokens((2, 3)), Tokens((3, 2), True, 4), Tokens((2, 2), False), Tokens((1, 5), False, 2)]


def axes_of(figure: Figure, name: str) -> Axes:
    (found,) = (ax for ax in figure.axes if ax.get_label() == name)
    return found


def pixel(ax: Axes, maps: AttentionMaps, place: tuple[int, int, int, int]) -> list[int]:
    """The drawn colour of a token: in its middle, found by the numbers on the axes."""
    layer, head, y, x = place
    (image,) = ax.get_images()
    rows, columns = maps.tokens.grid
    # One map of a mosaic is as wide as the distance between two heads, less a gap of two pixels.
    across, down = np.diff(ax.get_xticks()[:2])[0], ax.get_yticks()[layer]
    scale = round((across - 2) / columns)
    left = ax.get_xticks()[head] + (x - (columns - 1) / 2) * scale
    top = down + (y - (rows - 1) / 2) * scale
    return np.asarray(image.get_array())[int(top), int(left)].tolist()


def colour(level: float) -> list[int]:
    found = colormaps[style.VALUE_COLOURS](round(min(level, 1) * 255))
    return [round(255 * part) for part in found[:3]]


def spatial(maps: AttentionMaps, name: str) -> np.ndarray:
    values = np.asarray(maps.arrays[name], dtype=np.float64)
    if TOKEN_MAPS[name.removesuffix(CLASS_DEVIATION)] == ("key",):
        values = values[..., maps.tokens.n_prefix :]
    return values.reshape(*values.shape[:2], *maps.tokens.grid)


@pytest.mark.parametrize("tokens", KINDS, ids=str)
def test_maps_are_split_into_grid_and_prefix(tokens: Tokens) -> None:
    maps = made_maps(tokens)
    panels = {panel.name: panel for panel in token_panels(maps)}
    assert list(panels) == [n for n in TOKEN_MAPS if tokens.has_cls or n != "cls_query"]
    for name, panel in panels.items():
        given = np.asarray(maps.arrays[name], dtype=np.float64)
        np.testing.assert_array_equal(panel.spatial, spatial(maps, name))
        if name == "spatial_queries_renormalised" or not tokens.n_prefix:
            assert panel.shares is None
            assert panel.n_tokens == tokens.n_spatial
            continue
        assert panel.shares is not None
        assert panel.n_tokens == tokens.n_tokens
        for layer, head in np.ndindex(3, 2):
            on_cls = given[layer, head, 0] if tokens.has_cls else 0
            first = int(tokens.has_cls)
            registers = sum(given[layer, head, first : first + tokens.n_registers])
            np.testing.assert_allclose(panel.shares[layer, head], (on_cls, registers))


@pytest.mark.parametrize("tokens", KINDS[:3], ids=str)
def test_each_map_is_drawn_up_to_a_percentile_of_its_own(tokens: Tokens) -> None:
    maps = made_maps(tokens)
    figure = own_scale(maps, MODEL)
    assert overlay.said_of_scale(98) in words(figure)
    for name in TOKEN_MAPS:
        if name not in maps.arrays:
            continue
        values = spatial(maps, name)
        for place in np.ndindex(values.shape):
            level = values[place] / np.percentile(values[place[:2]], overlay.PERCENTILE)
            assert pixel(axes_of(figure, name), maps, place) == colour(level), (name, place)


def test_the_common_scale_is_that_of_all_models() -> None:
    small, large = made_maps(Tokens((2, 3))), made_maps(Tokens((4, 4), True, 1), model="n", seed=1)
    limit = common_limit([small, large])
    every = []
    for maps in (small, large):
        for name in TOKEN_MAPS:
            alike = maps.tokens.n_spatial if "renorm" in name else maps.tokens.n_tokens
            every += (spatial(maps, name) * alike).ravel().tolist()
    assert limit == pytest.approx(np.quantile(every, 0.995))
    assert limit > common_limit([small]) or limit > common_limit([large])
    for maps in (small, large):
        figure = common_scale(maps, MODEL, limit, 2)
        for name in TOKEN_MAPS:
            values = spatial(maps, name)
            alike = maps.tokens.n_spatial if "renorm" in name else maps.tokens.n_tokens
            for place in np.ndindex(values.shape):
                found = pixel(axes_of(figure, name), maps, place)
                assert found == colour(values[place] * alike / limit), (name, place)
        said = words(figure)
        assert f"the scale ends at {limit:.3g}" in said
        assert "0.5 % of the values of all 2 models" in said
        assert "× uniform" in said


def test_uniform_attention_is_one_times_uniform_whatever_the_tokens() -> None:
    for tokens in KINDS:
        maps = made_maps(tokens)
        arrays = {
            name: np.full_like(
                values, 1 / (tokens.n_spatial if "renorm" in name else tokens.n_tokens)
            )
            for name, values in maps.arrays.items()
        }
        assert common_limit([replace(maps, arrays=arrays)]) == pytest.approx(1)


@pytest.mark.parametrize("draw", [own_scale, class_deviation])
def test_figures_say_what_they_are_of(draw: object) -> None:
    figure = draw(made_maps(Tokens((2, 3), True, 2)), MODEL)  # type: ignore[operator]
    said = words(figure)
    assert "Model B/16" in said
    assert "digits, mean over 1,599 images" in said


def test_what_a_model_lacks_is_said() -> None:
    with_all = words(own_scale(made_maps(Tokens((2, 3), True, 2)), MODEL))
    assert "on CLS" in with_all
    assert "on registers" in with_all
    assert "share of attention that is on CLS and registers" in with_all
    without = made_maps(Tokens((2, 3), False), null_rows="exclude")
    said = words(own_scale(without, MODEL))
    assert "no CLS token" in said
    assert "CLS query" not in said
    assert "Bar below" not in said
    assert "are left out" in said


def test_deviation_over_classes_is_on_one_scale() -> None:
    maps = made_maps(Tokens((2, 3), True, 1))
    limit = common_limit([maps], CLASS_DEVIATION)
    figure = class_deviation(maps, MODEL)
    values = spatial(maps, f"cls_query{CLASS_DEVIATION}") * maps.tokens.n_tokens
    for place in np.ndindex(values.shape):
        found = pixel(axes_of(figure, "cls_query"), maps, place)
        assert found == colour(values[place] / limit)
    assert "means of 10 classes (ddof 1)" in words(figure)


def test_without_two_classes_the_figure_says_so() -> None:
    figure = class_deviation(made_maps(Tokens((2, 3)), classes=1), MODEL)
    assert "digits" in words(figure)
    assert_readable(figure)
    # In the place of the maps, and not as a note above nothing.
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.texts] == [
        "The images have fewer than two classes: there is no deviation."
    ]
    assert ax.get_window_extent().height > 0.3 * figure.bbox.height


@pytest.mark.parametrize(
    ("tokens", "layers", "heads"),
    [
        (Tokens((8, 8)), 6, 4),
        (Tokens((14, 14), True, 4), 12, 12),
        (Tokens((3, 2), True, 4), 1, 1),
        (Tokens((4, 4), False), 32, 16),
    ],
)
def test_nothing_is_cut_and_no_texts_overlap(tokens: Tokens, layers: int, heads: int) -> None:
    label = "vit_base_patch16." * 3 if heads == 1 else "M"
    maps, model = made_maps(tokens, layers, heads), Model("m", label, "dino")
    draw = [own_scale] if layers > 6 else [own_scale, class_deviation]
    for figure in [one(maps, model) for one in draw] + [common_scale(maps, model, 2.0, 26)]:
        assert_readable(figure)


def test_layers_have_their_own_numbers() -> None:
    figure = own_scale(made_maps(Tokens((2, 3)), first_layer=7), MODEL)
    labels = axes_of(figure, "all_queries").get_yticklabels()
    assert [label.get_text() for label in labels] == ["7", "8", "9"]


def test_a_head_without_values_is_grey_and_no_part_of_the_scale() -> None:
    maps = made_maps(Tokens((2, 3)), null_rows="exclude")
    broken = np.array(maps.arrays["spatial_queries_renormalised"])
    broken[1, 0] = np.nan
    holed = replace(maps, arrays={**maps.arrays, "spatial_queries_renormalised": broken})
    assert np.isfinite(common_limit([holed]))
    ax = axes_of(own_scale(holed, MODEL), "spatial_queries_renormalised")
    red, green, blue = pixel(ax, maps, (1, 0, 0, 0))
    assert red == green == blue
    assert len(set(pixel(ax, maps, (1, 1, 0, 0)))) > 1


@pytest.mark.parametrize("ending", ["", CLASS_DEVIATION])
@pytest.mark.parametrize("tokens", KINDS, ids=str)
def test_rows_are_the_values(tokens: Tokens, ending: str) -> None:
    maps = made_maps(tokens, first_layer=5)
    rows = list(token_rows(maps, ending))
    assert len(rows) == sum(
        maps.arrays[name + ending].size for name in TOKEN_MAPS if name + ending in maps.arrays
    )
    for row in rows:
        values = maps.arrays[row.map + ending][row.layer - 5, row.head]
        if row.map == "spatial_queries_renormalised":
            expected = values[row.y, row.x]
        elif row.token == "spatial":
            assert row.y is not None
            assert row.x is not None
            expected = values[tokens.n_prefix + row.y * tokens.grid[1] + row.x]
        elif row.token == "cls":
            assert tokens.has_cls
            expected = values[0]
        else:
            expected = values[int(tokens.has_cls) + int(row.token.removeprefix("register_"))]
        assert row.value == pytest.approx(expected, rel=1e-6)
    assert (rows[0].dataset, rows[0].model) == ("digits", "m")


def test_rows_of_many_heads_are_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = made_maps(Tokens((2, 3)))
    whole = list(token_rows(maps))
    monkeypatch.setattr(map_figures, "MAX_ROWS", len(whole))
    assert list(token_rows(maps)) == whole
    monkeypatch.setattr(map_figures, "MAX_ROWS", len(whole) - 1)
    rows = list(token_rows(maps))
    assert len(rows) == len(whole) // 2

    def place(row: TokenRow) -> tuple[object, ...]:
        return row.map, row.layer, row.token, row.y, row.x

    for row in rows:
        assert row.head is None
        both = [other.value for other in whole if place(other) == place(row)]
        assert row.value == pytest.approx(sum(both) / 2, rel=1e-5)


def test_what_cannot_be_drawn_fails_in_one_line() -> None:
    bare = replace(made_maps(Tokens((2, 3))), arrays={})
    for draw in (own_scale, lambda maps, model: common_scale(maps, model, 1.0, 1)):
        with pytest.raises(AnalysisError, match="no token maps of m on digits: compute") as caught:
            draw(bare, MODEL)
        assert "\n" not in str(caught.value)
    with pytest.raises(AnalysisError, match="no attention maps have values"):
        common_limit([bare])
