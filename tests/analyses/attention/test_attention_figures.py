from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, axes_named, lines, shown_texts, words
from tests.figures.drawings import figure_of, panels_of
from tests.figures.made_tables import DEMO, PAPER, Made, attention_rows, models
from vitfeat.analyses.attention.across import CURVES
from vitfeat.analyses.rows import AttentionRow
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.curves import average_rows, curve_rows, head_rows
from vitfeat.figures.models import Model

NO_CLS = Made(Model("siglip", "SigLIP 2", "siglip2", "6x64/4@32"), has_cls=False)
ONE_HEAD = Made(Model("single", "One head", "mine", "6x64/4@32"), heads=1)


def heads_of(rows: Sequence[AttentionRow], model: str, metric: str, layer: int) -> list[float]:
    return [r.mean for r in rows if (r.model, r.metric, r.layer) == (model, metric, layer)]


def drawn(made: Sequence[Made], draw: str, rows: Sequence[AttentionRow] | None = None) -> Figure:
    given = attention_rows(made) if rows is None else rows
    return figure_of(CURVES, draw, made, given, ("digits", "photos"))


ALL = ("by_layer", "families", "breakout", "averages", "overview")


@pytest.mark.parametrize("metric", ["distance", "entropy_share", "deviation_heads"])
def test_lines_are_means_over_heads(metric: str) -> None:
    rows = attention_rows(DEMO)
    found = lines(axes_named(drawn(DEMO, "by_layer"), f"digits/{metric}"))
    assert set(found) == {made.model.id for made in DEMO}
    for made in DEMO:
        line = found[made.model.id]
        assert list(line.get_xdata()) == list(range(6))
        expected = [np.mean(heads_of(rows, made.model.id, metric, layer)) for layer in range(6)]
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
        assert to_hex(line.get_color()) == style.family_colour(made.model.family).lower()


def test_bands_are_the_middle_half_of_heads() -> None:
    rows = attention_rows(DEMO)
    ax = axes_named(drawn(DEMO, "by_layer"), "digits/entropy_share")
    bands = [c for c in ax.collections if c.get_alpha() is not None and c.get_label() != "leaders"]
    assert len(bands) == len(DEMO)
    found = {to_hex(band.get_facecolor()[0][:3]): band.get_paths()[0].vertices for band in bands}
    vertices = found[style.family_colour("mae").lower()]
    for layer in range(6):
        low, high = np.quantile(heads_of(rows, "demo-mae", "entropy_share", layer), (0.25, 0.75))
        here = vertices[vertices[:, 0] == layer][:, 1]
        assert here.min() == pytest.approx(low)
        assert here.max() == pytest.approx(high)


def test_heads_without_a_value_are_left_out_of_means() -> None:
    rows = [
        row._replace(mean=np.nan, n_images=0)
        if (row.metric, row.layer) == ("distance", 2) and row.head in (0, 3)
        else row
        for row in attention_rows(DEMO)
    ]
    line = lines(axes_named(drawn(DEMO, "by_layer", rows), "digits/distance"))["demo-clip"]
    held = [v for v in heads_of(rows, "demo-clip", "distance", 2) if not np.isnan(v)]
    assert len(held) == 2
    assert line.get_ydata()[2] == pytest.approx(np.mean(held))
    assert "599 images" in words(drawn(DEMO, "by_layer", rows))


def test_networks_of_several_sizes_have_a_column_each() -> None:
    figure = drawn(PAPER, "by_layer")
    named = [str(ax.get_label()) for ax in figure.axes]
    assert [name for name in named if "distance" in name] == [
        "digits/distance/ViT-S",
        "digits/distance/ViT-B",
        "digits/distance/ViT-L, ViT-H",
    ]
    scales = {ax.get_ylim() for ax in figure.axes if "distance" in str(ax.get_label())}
    assert len(scales) == 1
    for ax in figure.axes:
        low, high = ax.get_xlim()
        last = 31 if "ViT-L" in str(ax.get_label()) else 11
        assert -1 < low < 0
        assert last < high < last + 1
    large = lines(axes_named(figure, "digits/distance/ViT-L"))
    assert len(large["mae-H/14"].get_xdata()) == 32
    assert len(large["mae-L/16"].get_xdata()) == 24
    assert {len(lines(ax)) for ax in figure.axes if "distance" in str(ax.get_label())} == {5, 13, 8}
    (legend,) = figure.legends
    named = [t.get_text() for t in legend.get_texts()]
    assert named[: len(PAPER)] == [made.model.label for made in PAPER]
    assert named[len(PAPER) :][:2] == ["ViT-S", "ViT-B"]
    assert named[-2:] == ["patch 14", "input over 256 pixels"]


def test_two_patch_sizes_are_told_apart_beside_labelled_lines() -> None:
    made = [
        Made(Model("a", "Trained", "dinov2", "S/14@224")),
        Made(Model("b", "Untrained", "random", "S/16@224")),
    ]
    figure = drawn(made, "by_layer")
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["patch 16", "patch 14"]
    found = lines(axes_named(figure, "digits/distance"))
    assert {line.get_linestyle() for line in found.values()} == {"-"}
    assert_readable(figure)


def test_the_entropy_says_what_its_maximum_is() -> None:
    for name in ("by_layer", "families", "breakout", "averages"):
        assert "Maximum of the entropy: the logarithm of the number of tokens" in words(
            drawn(DEMO, name)
        )


def test_families_show_all_sizes_over_depth() -> None:
    rows = attention_rows(PAPER)
    figure = drawn(PAPER, "families")
    found = lines(axes_named(figure, "distance/0"))
    assert set(found) == {made.model.id for made in PAPER}
    starts, ends = set(), set()
    for made in PAPER:
        line = found[made.model.id]
        x = np.asarray(line.get_xdata())
        if made.model.family == "mae":
            starts.add(round(float(x[0]), 9))
            ends.add(round(float(x[-1]), 9))
        np.testing.assert_allclose(np.diff(x), (x[-1] - x[0]) / (made.depth - 1))
        expected = [
            np.mean(heads_of(rows, made.model.id, "distance", at)) for at in range(made.depth)
        ]
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    # 12, 24 and 32 layers take the same width.
    assert len(starts) == len(ends) == 1
    assert found["mae-B/16"].get_linestyle() != found["mae-L/16"].get_linestyle()
    assert found["clip-B/32"].get_marker() != found["clip-B/16"].get_marker()


def test_every_head_is_a_dot() -> None:
    rows = attention_rows(PAPER)
    figure = drawn(PAPER, "breakout")
    heads = [row for row in rows if row.metric == "spatial_to_cls"]
    dots = {
        str(line.get_label()): line
        for ax in figure.axes
        if str(ax.get_label()).startswith("spatial_to_cls/")
        for line in ax.lines
    }
    assert set(dots) == {made.model.id for made in PAPER}
    assert sum(len(line.get_ydata()) for line in dots.values()) == len(heads)
    for made in PAPER:
        line = dots[made.model.id]
        expected = [r.mean for r in heads if r.model == made.model.id]
        np.testing.assert_array_equal(line.get_ydata(), expected)
        x = np.asarray(line.get_xdata()).reshape(made.depth, made.heads)
        assert (np.diff(x[:, 0]) > 0).all()
        assert (x == x[:, :1]).all()
        assert line.axes is not None
        low, high = line.axes.get_xlim()
        assert low < x.min() < x.max() < high
    named = [ax for ax in figure.axes if str(ax.get_label()).startswith("entropy_share")]
    scales = {ax.get_ylim() for ax in named}
    assert len(scales) == 1


def test_means_lie_over_the_dots_that_they_are_of() -> None:
    ax = axes_named(drawn(DEMO, "breakout"), "entropy_share/0")
    bars = {str(b.get_label()): b for b in ax.collections if str(b.get_label()).startswith("means")}
    assert set(bars) == {f"means {made.model.id}" for made in DEMO}
    dots = [line.get_zorder() for line in lines(ax).values()]
    assert max(dots) < min(bar.get_zorder() for bar in bars.values())


@pytest.mark.parametrize(("draw", "name"), [("breakout", "layer"), ("families", "depth")])
def test_every_panel_says_what_goes_across(draw: str, name: str) -> None:
    found = [text.get_text() for text in shown_texts(drawn(DEMO, draw))]
    assert found.count(name) == len(DEMO)


def test_lines_of_many_layers_have_few_markers() -> None:
    figure = drawn(PAPER, "by_layer")
    steps = {
        made.depth: lines(ax)[made.model.id].get_markevery()
        for made in PAPER
        for ax in figure.axes
        if made.model.id in lines(ax)
    }
    assert steps == {12: 1, 24: 2, 32: 3}


def test_averages_are_over_all_layers_and_heads() -> None:
    rows = attention_rows(PAPER)
    figure = drawn(PAPER, "averages")
    found = lines(axes_named(figure, "digits/distance/entropy"))
    for made in PAPER:
        (x,), (y,) = found[made.model.id].get_data()
        for metric, at in (("distance", x), ("entropy_share", y)):
            mine = [r.mean for r in rows if (r.model, r.metric) == (made.model.id, metric)]
            assert at == pytest.approx(np.mean(mine))
    assert found["mae-H/14"].get_markersize() > found["mae-B/16"].get_markersize()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [m.label for m in models(PAPER)]
    assert not drawn(DEMO, "averages").legends


def test_tables_beside_figures_hold_what_is_drawn() -> None:
    rows = attention_rows(DEMO)
    table = {(r.metric, r.model, r.layer): r for r in curve_rows(panels_of(CURVES, DEMO, rows))}
    line = lines(axes_named(drawn(DEMO, "by_layer"), "digits/entropy_share"))["demo-dino"]
    for layer, value in zip(line.get_xdata(), line.get_ydata(), strict=True):
        row = table["entropy_share", "demo-dino", layer]
        assert (row.value, row.unit, row.n_images, row.dataset) == (
            value,
            "share of ln(tokens)",
            599,
            "digits",
        )
        assert row.depth == layer / 5
    assert len(table) == 8 * 7 * 6
    of_heads = {measure.score for measure in CURVES.measures if measure.heads}
    dots = list(head_rows(panels_of(CURVES, DEMO, rows, "breakout")))
    assert {row.metric for row in dots} == of_heads
    assert sorted(r.value for r in dots) == sorted(r.mean for r in rows if r.metric in of_heads)
    means = average_rows(panels_of(CURVES, DEMO, rows, "averages"))
    averages = {(r.metric, r.model): r.value for r in means}
    point = lines(axes_named(drawn(DEMO, "averages"), "digits/distance/entropy"))["demo-mae"]
    assert point.get_data() == (
        [averages["distance", "demo-mae"]],
        [averages["entropy_share", "demo-mae"]],
    )


@pytest.mark.parametrize("draw", ALL)
def test_models_without_a_metric_are_drawn_without_and_named(draw: str) -> None:
    made = [*DEMO[:3], NO_CLS, ONE_HEAD]
    figure = drawn(made, draw)
    said = words(figure)
    # No word on registers, which most models do not have.
    assert "egister" not in said
    assert "No values of SigLIP 2: Spatial-to-CLS attention" in said
    if draw != "breakout":
        assert "No values of One head: Deviation over heads" in said
    if draw == "by_layer":
        assert "siglip" not in lines(axes_named(figure, "digits/spatial_to_cls"))
        assert "siglip" in lines(axes_named(figure, "digits/distance"))


def test_metrics_of_registers_appear_where_some_model_has_them() -> None:
    rows = attention_rows(DEMO[:2])
    made = replace(DEMO[1], heads=1)
    rows += [
        AttentionRow(
            made.model.id, "digits", at, 0, name, "share of attention", "zero", 0, 9, 0.1, 0
        )
        for at in range(6)
        for name in ("spatial_to_registers",)
    ]
    said = words(drawn(DEMO[:2], "by_layer", rows))
    assert "Spatial-to-register attention" in said
    assert "9 to 599 images" in said


@pytest.mark.parametrize("draw", ALL)
def test_figures_say_dataset_and_images(draw: str) -> None:
    said = words(drawn(DEMO, draw))
    assert "digits, 599 images" in said
    for made in DEMO:
        assert made.model.label in said


LONG = [Made(Model("long", "vit_base_patch16." * 3, "dino", "B/16@224")), *DEMO[:1]]
MANY_FAMILIES = [
    Made(Model(family, f"{family} B/16", family, "B/16@224"), heads=2)
    for family in style.FAMILY_COLOURS
]


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    "made",
    [DEMO, PAPER, DEMO[:1], [*DEMO, NO_CLS, ONE_HEAD], LONG, MANY_FAMILIES],
    ids=["demo", "paper", "one", "nine", "long", "families"],
)
def test_nothing_is_cut_and_no_texts_overlap(draw: str, made: Sequence[Made]) -> None:
    assert_readable(drawn(made, draw))


def test_a_network_of_one_layer_is_drawn() -> None:
    made = [replace(DEMO[0], depth=1), replace(DEMO[1], depth=1, heads=1)]
    for draw in ALL:
        assert_readable(drawn(made, draw))


def test_values_that_are_all_equal_are_drawn() -> None:
    rows = [row._replace(mean=0.0) for row in attention_rows(DEMO)]
    for draw in ALL:
        assert_readable(drawn(DEMO, draw, rows))


@pytest.mark.parametrize("draw", ALL)
def test_nothing_to_draw_is_an_error(draw: str) -> None:
    with pytest.raises(AnalysisError, match="no values to draw"):
        drawn(DEMO, draw, [])


def test_a_table_with_holes_is_an_error() -> None:
    rows = attention_rows(DEMO)
    with pytest.raises(AnalysisError, match="distance of demo-supervised on digits has 23 values"):
        panels_of(CURVES, DEMO, rows[1:])
    with pytest.raises(AnalysisError, match="has 25 values for 6 layers of 4 heads"):
        panels_of(CURVES, DEMO, [*rows, rows[0]])
