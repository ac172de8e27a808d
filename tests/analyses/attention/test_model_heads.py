from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, words
from tests.figures.drawings import panels_of
from tests.figures.made_tables import DEMO, PAPER, Made, attention_rows, models
from vitfeat.analyses.attention.across import CURVES
from vitfeat.analyses.attention.head_figures import (
    PAIRED,
    by_layer_figure,
    common_scale,
    heads_figure,
    heat_rows,
    layer_rows,
    pair_rows,
    pairs_figure,
    ranked,
    sorted_figure,
    sorted_rows,
)
from vitfeat.analyses.rows import AttentionRow
from vitfeat.errors import AnalysisError
from vitfeat.figures.curves import Panel
from vitfeat.figures.models import Model

OF_HEADS = [measure.score for measure in CURVES.measures if measure.heads]
MODELS = models(DEMO)
DINO = MODELS[2]


def given(made: Sequence[Made] = DEMO, rows: Sequence[AttentionRow] = ()) -> list[Panel]:
    return panels_of(CURVES, made, rows or attention_rows(made))


def of_heads(every: Sequence[Panel]) -> list[Panel]:
    return [panel for panel in every if panel.name in OF_HEADS]


def axes_of(figure: Figure, name: str) -> Axes:
    (found,) = (ax for ax in figure.axes if ax.get_label() == name)
    return found


def table(model: str = "demo-dino", made: Sequence[Made] = DEMO) -> dict[str, np.ndarray]:
    """Values of each metric as (layer, head), from the rows alone."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    for row in attention_rows(made):
        if row.model == model:
            found.setdefault(row.metric, {})[row.layer, row.head or 0] = row.mean
    return {
        name: np.array(
            [
                [cells[i, j] for j in range(max(j for _, j in cells) + 1)]
                for i in range(max(i for i, _ in cells) + 1)
            ]
        )
        for name, cells in found.items()
    }


def test_heads_are_ranked_within_layers_and_nan_comes_last() -> None:
    values = np.array([[0.1, np.nan, 0.3, 0.2], [5.0, 5.0, 7.0, 5.0], [np.nan] * 4])
    assert ranked(values).tolist() == [[2, 3, 0, 1], [2, 0, 1, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("name", OF_HEADS)
def test_heat_maps_show_every_head_unsorted_and_sorted(name: str) -> None:
    figure = heads_figure(of_heads(given()), DINO)
    values = table()[name]
    for kind, expected in (
        ("numbered", values),
        ("sorted", np.array([sorted(layer, reverse=True) for layer in values.tolist()])),
    ):
        ax = axes_of(figure, f"{name}/{kind}")
        (image,) = ax.get_images()
        np.testing.assert_array_equal(np.asarray(image.get_array()), expected)
        # Layer 0 is at the top, head 0 at the left.
        assert ax.get_ylim() == (5.5, -0.5)
        assert ax.get_xlim() == (-0.5, 3.5)
        assert image.origin == "upper"


@pytest.mark.parametrize("name", OF_HEADS)
def test_the_scale_is_common_to_all_models(name: str) -> None:
    # One model has the least value of all, another the largest.
    factor = {"demo-clip": 3.0, "demo-beit": 0.1}
    rows = [row._replace(mean=factor.get(row.model, 1) * row.mean) for row in attention_rows(DEMO)]
    high = 3 * table("demo-clip")[name].max()
    low = 0.1 * table("demo-beit")[name].min()
    for model in MODELS[:3]:
        figure = heads_figure(of_heads(given(rows=rows)), model)
        for kind in ("numbered", "sorted"):
            (image,) = axes_of(figure, f"{name}/{kind}").get_images()
            assert image.get_clim() == pytest.approx((low, high))
        said = words(figure)
        assert f"{low:.3g}" in said
        assert f"{high:.3g}" in said
        assert "of all 7 models" in said


def test_one_model_alone_has_its_own_scale() -> None:
    alone = of_heads(given(DEMO[2:3]))
    (image,) = axes_of(heads_figure(alone, DINO), "entropy_share/sorted").get_images()
    values = table()["entropy_share"]
    assert image.get_clim() == (values.min(), values.max())
    assert "models" not in words(heads_figure(alone, DINO))


def holed(rows: Sequence[AttentionRow], metric: str, layer: int, head: int) -> list[AttentionRow]:
    """The rows with one value NaN."""
    at = (metric, layer, head)
    return [
        row._replace(mean=float("nan"), n_images=0)
        if row.model == "demo-dino" and (row.metric, row.layer, row.head) == at
        else row
        for row in rows
    ]


def test_a_head_without_a_value_is_grey_and_said() -> None:
    every = given(rows=holed(attention_rows(DEMO), "distance", 1, 2))
    figure = heads_figure(of_heads(every), DINO)
    for kind, head in (("numbered", 2), ("sorted", 3)):
        (image,) = axes_of(figure, f"distance/{kind}").get_images()
        assert np.argwhere(np.isnan(np.asarray(image.get_array()))).tolist() == [[1, head]]
        assert np.isfinite(image.get_clim()).all()
    assert "Grey: a head without a value." in words(figure)
    assert "Grey" not in words(heads_figure(of_heads(given()), DINO))
    for draw in (sorted_figure, by_layer_figure, pairs_figure):
        assert_readable(draw(of_heads(every), DINO))
    lone = [row for row in pair_rows(of_heads(every), DINO) if (row.layer, row.head) == (1, 2)]
    assert {metric for row in lone for metric in (row.metric_x, row.metric_y)} == {
        *PAIRED,
    } - {"distance"}


def test_rows_of_heat_maps_are_what_is_drawn() -> None:
    every = of_heads(given())
    rows = list(heat_rows(every, DINO))
    assert len(rows) == len(OF_HEADS) * 6 * 4
    figure = heads_figure(every, DINO)
    for row in rows:
        numbered, ordered = (
            axes_of(figure, f"{row.metric}/{kind}").get_images()[0]
            for kind in ("numbered", "sorted")
        )
        assert np.asarray(numbered.get_array())[row.layer, row.head] == row.value
        assert np.asarray(ordered.get_array())[row.layer, row.rank] == row.value
        assert (row.scale_low, row.scale_high) == numbered.get_clim()


def test_by_layer_shows_every_head_and_their_mean() -> None:
    every = given()
    figure = by_layer_figure(every, DINO)
    for name, values in table().items():
        lines = {str(line.get_label()): line for line in axes_of(figure, name).lines}
        np.testing.assert_allclose(lines["means"].get_ydata(), values.mean(axis=1))
        assert list(lines["means"].get_xdata()) == list(range(6))
        if values.shape[1] == 1:
            assert set(lines) == {"means"}
            continue
        drawn = sorted(zip(*lines["heads"].get_data(), strict=True))
        assert drawn == sorted((i, v) for (i, _), v in np.ndenumerate(values))
    assert "deviation_heads" in table()
    found: dict[tuple[str, int, int | None], float] = {
        (row.metric, row.layer, row.head): row.value for row in layer_rows(every, DINO)
    }
    for name, values in table().items():
        for layer, heads in enumerate(values):
            assert found.pop((name, layer, None)) == pytest.approx(heads.mean())
            if len(heads) > 1:
                assert [found.pop((name, layer, j)) for j in range(4)] == heads.tolist()
    assert not found


def test_sorted_heads_fall_within_their_layer() -> None:
    every = of_heads(given())
    figure = sorted_figure(every, DINO)
    rows = list(sorted_rows(every, DINO))
    for name in OF_HEADS:
        values = table()[name]
        ax = axes_of(figure, name)
        (dots,) = ax.lines
        x, y = (np.asarray(part).reshape(6, 4) for part in dots.get_data())
        np.testing.assert_array_equal(y, -np.sort(-values, axis=1))
        assert (np.diff(x, axis=1) > 0).all()
        assert (np.rint(x) == np.arange(6)[:, None]).all()
        (means,) = (c for c in ax.collections if c.get_label() == "means")
        assert isinstance(means, LineCollection)
        for layer, segment in enumerate(means.get_segments()):
            np.testing.assert_allclose(segment[:, 1], values[layer].mean())
        for row in rows:
            if row.metric == name and row.rank is not None:
                assert row.head is not None
                assert row.value == values[row.layer, row.head] == y[row.layer, row.rank]
            elif row.metric == name:
                assert row.head is None
                assert row.value == pytest.approx(values[row.layer].mean())
    assert len(rows) == len(OF_HEADS) * 6 * 5


def test_pairs_are_points_of_heads_coloured_by_layer() -> None:
    every = of_heads(given())
    figure = pairs_figure(every, DINO)
    found = table()
    pairs = [(a, b) for i, a in enumerate(PAIRED) for b in PAIRED[i + 1 :]]
    for a, b in pairs:
        (points,) = axes_of(figure, f"{a}/{b}").collections
        assert isinstance(points, PathCollection)
        expected = np.column_stack([found[a].ravel(), found[b].ravel()])
        np.testing.assert_array_equal(np.asarray(points.get_offsets()), expected)
        colours = np.asarray(points.get_facecolor()).reshape(6, 4, -1)
        assert len({tuple(one) for one in colours[:, 0].tolist()}) == 6
        assert (colours == colours[:, :1]).all()
        # Lighter from layer to layer.
        assert (np.diff(colours[:, 0, :3] @ (0.2126, 0.7152, 0.0722)) > 0).all()
    rows = list(pair_rows(every, DINO))
    assert len(rows) == 6 * 24
    for row in rows:
        assert row.x == found[row.metric_x][row.layer, row.head]
        assert row.y == found[row.metric_y][row.layer, row.head]


DRAWN = (by_layer_figure, sorted_figure, heads_figure, pairs_figure)


@pytest.mark.parametrize("draw", DRAWN)
def test_figures_say_what_they_are_of(draw: object) -> None:
    every = of_heads(given(rows=attention_rows(DEMO, n_images=1599)))
    said = words(draw(every, DINO))  # type: ignore[operator]
    assert "DINO: " in said
    assert "digits, means over 1,599 images" in said


def test_what_a_model_lacks_is_said() -> None:
    bare = [replace(DEMO[2], has_cls=False), *DEMO[3:]]
    every = given(bare)
    for figure in (
        heads_figure(of_heads(every), DINO),
        sorted_figure(of_heads(every), DINO),
        pairs_figure(of_heads(every), DINO),
    ):
        assert "The model has no values of: Spatial-to-CLS attention." in words(figure)
    said = words(by_layer_figure(every, DINO))
    assert "no values of: Spatial-to-CLS attention, CLS-to-CLS attention." in said
    assert len([ax for ax in pairs_figure(every, DINO).axes if "/" in ax.get_label()]) == 3
    assert "no values of" not in words(by_layer_figure(given(), DINO))


def test_one_head_is_its_own_mean() -> None:
    made = [Made(Model("a", "A", "dino"), 3, 1), DEMO[0]]
    every = given(made)
    figure = by_layer_figure(every, made[0].model)
    assert {str(line.get_label()) for line in axes_of(figure, "distance").lines} == {"means"}
    assert "the layer" in words(figure)
    assert "mean over heads" not in words(figure)
    assert "Deviation over heads" in words(figure)
    for draw in DRAWN:
        drawn = draw(every if draw is by_layer_figure else of_heads(every), made[0].model)
        assert_readable(drawn)


def test_equal_values_have_a_scale_too() -> None:
    rows = [row._replace(mean=0.0) for row in attention_rows(DEMO)]
    every = given(rows=rows)
    assert common_scale(every[0]) == (0, 0)
    for draw in DRAWN:
        drawn = draw(every if draw is by_layer_figure else of_heads(every), DINO)
        assert_readable(drawn)


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize(
    "made",
    [
        DEMO[0],
        next(one for one in PAPER if one.depth == 32),
        Made(Model("x", "vit_base_patch16." * 3, "mae"), 48, 25),
        Made(Model("x", "M", "mae"), 12, 12, has_cls=False),
    ],
    ids=lambda made: f"{made.depth}x{made.heads}",
)
def test_nothing_is_cut_and_no_texts_overlap(draw: object, made: Made) -> None:
    every = given([made])
    drawn = every if draw is by_layer_figure else of_heads(every)
    assert_readable(draw(drawn, made.model))  # type: ignore[operator]


@pytest.mark.parametrize("draw", DRAWN)
def test_a_model_without_values_fails_in_one_line(draw: object) -> None:
    with pytest.raises(AnalysisError, match="no attention metrics of z: compute") as caught:
        draw(given(), Model("z", "Z", "dino"))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_metrics_against_one_another_need_two() -> None:
    only = [panel for panel in given() if panel.name in ("entropy_share", "offset_length")]
    with pytest.raises(AnalysisError, match=r"values of entropy_share of distance, .* need two"):
        pairs_figure(only, DINO)
