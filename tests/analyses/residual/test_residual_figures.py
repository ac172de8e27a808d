from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, axes_named, lines, words
from tests.figures.drawings import figure_of, panels_of
from tests.figures.made_tables import DEMO, PAPER, Made, cka_rows, models, norm_rows
from vitfeat.analyses.residual.across import CKA, NORMS
from vitfeat.analyses.residual.cka_figures import cka_figure
from vitfeat.analyses.rows import ResidualCkaRow, ResidualNormRow
from vitfeat.errors import AnalysisError
from vitfeat.figures import across
from vitfeat.figures.curves import curve_rows
from vitfeat.figures.models import Model

NO_CLS = Made(Model("siglip", "SigLIP 2", "siglip2", "6x64/4@32"), has_cls=False)


def norms(made: Sequence[Made], rows: Sequence[ResidualNormRow] | None = None) -> Figure:
    return figure_of(NORMS, "by_layer", made, norm_rows(made) if rows is None else rows)


def families(made: Sequence[Made]) -> Figure:
    return figure_of(NORMS, "families", made, norm_rows(made))


def cka(made: Sequence[Made], rows: Sequence[ResidualCkaRow] | None = None) -> Figure:
    return cka_figure("digits", cka_rows(made) if rows is None else rows, models(made))


def overview(made: Sequence[Made], with_cka: bool = True) -> Figure:
    tables = [(NORMS, {"digits": norm_rows(made)}), (CKA, {"digits": cka_rows(made)})]
    some = tables if with_cka else tables[:1]
    return across.overview("residual", "Skip connections", some, models(made)).figure


def test_lines_are_the_ratios_on_a_logarithmic_scale() -> None:
    rows = norm_rows(DEMO)
    figure = norms(DEMO)
    table = {(r.metric, r.model, r.layer): r for r in curve_rows(panels_of(NORMS, DEMO, rows))}
    for branch in ("attn", "mlp"):
        for ratio in ("cls", "spatial", "spatial_tokens"):
            ax = axes_named(figure, f"digits/{branch}/{ratio}/")
            assert ax.get_yscale() == "log"
            for made in DEMO:
                mine = [
                    r.mean
                    for r in rows
                    if (r.model, r.branch, r.ratio) == (made.model.id, branch, ratio)
                ]
                np.testing.assert_array_equal(lines(ax)[made.model.id].get_ydata(), mine)
                written = [table[f"{branch}/{ratio}", made.model.id, at].value for at in range(6)]
                assert written == mine
    row = table["mlp/cls", "demo-mae", 3]
    assert row.high - row.value == pytest.approx(0.3)
    assert row.value - row.low == pytest.approx(0.3)


def test_bands_down_to_zero_do_not_stretch_a_logarithmic_axis() -> None:
    for below in (-40, 0.001):
        rows = [
            row._replace(mean=2.0 + row.layer, deviation=2.0 + row.layer - below)
            for row in norm_rows(DEMO)
        ]
        low, high = axes_named(norms(DEMO, rows), "digits/attn/cls").get_ylim()
        assert 1 < low < 2
        assert 2 * 7 - below < high < 2 * (2 * 7 - below)


def test_ratios_that_no_image_has_are_gaps() -> None:
    rows = [
        row._replace(mean=np.nan, deviation=np.nan, n_images=0) if row.layer == 2 else row
        for row in norm_rows(DEMO)
    ]
    figure = norms(DEMO, rows)
    line = lines(axes_named(figure, "digits/attn/cls"))["demo-clip"]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False, False]
    assert "digits, 599 images" in words(figure)
    assert_readable(figure)


def matrix_at(ax: Axes, model: str) -> np.ndarray:
    (image,) = (image for image in ax.get_images() if image.get_label() == model)
    assert image.origin == "lower"
    assert (image.norm.vmin, image.norm.vmax) == (0, 1)
    return np.asarray(image.get_array())


@pytest.mark.parametrize("made", [DEMO, PAPER], ids=["demo", "paper"])
def test_skips_go_up_and_branches_to_the_right(made: Sequence[Made]) -> None:
    rows = cka_rows(made)
    figure = cka(made)
    for one in made:
        axes = [
            ax
            for ax in figure.axes
            if str(ax.get_label()).startswith("mlp/spatial/")
            and one.model.id in {image.get_label() for image in ax.get_images()}
        ]
        (ax,) = axes
        found = matrix_at(ax, one.model.id)
        assert found.shape == (one.depth, one.depth)
        for row in rows:
            if (row.model, row.branch, row.tokens) == (one.model.id, "mlp", "spatial"):
                assert found[row.layer_skip, row.layer_branch] == row.cka


def test_models_stand_side_by_side_in_their_order() -> None:
    ax = axes_named(cka(DEMO), "attn/all/0")
    extents = [image.get_extent() for image in ax.get_images()]
    assert [image.get_label() for image in ax.get_images()] == [m.id for m in models(DEMO)]
    for (_, right, _, _), (left, *_) in pairwise(extents):
        assert right < left


def test_no_value_and_no_token_are_explained() -> None:
    figure = cka([*DEMO[:2], NO_CLS])
    said = words(figure)
    assert "no CKA (nan)" in said
    assert "no such tokens" in said
    for name, count in (("attn/cls/0", 1), ("mlp/cls/0", 1), ("attn/spatial/0", 0)):
        hatched = [patch for patch in axes_named(figure, name).patches if patch.get_hatch()]
        assert len(hatched) == count
    full = [row for row in cka_rows(DEMO[:2]) if not np.isnan(row.cka) or row.tokens != "cls"]
    with pytest.raises(AnalysisError, match="30 values for 6 blocks"):
        cka(DEMO[:2], full)
    spatial = cka_rows(DEMO[:2], tokens=["spatial"])
    assert "nan" not in words(cka(DEMO[:2], spatial))
    assert len(cka(DEMO[:2], spatial).axes) == 3  # two branches and the colour bar


def test_same_blocks_are_the_diagonal() -> None:
    rows = cka_rows(DEMO)
    ax = axes_named(overview(DEMO), "digits/cka/mlp/spatial")
    for made in DEMO:
        expected = [
            r.cka
            for r in rows
            if (r.model, r.branch, r.tokens) == (made.model.id, "mlp", "spatial")
            and r.layer_skip == r.layer_branch
        ]
        np.testing.assert_array_equal(lines(ax)[made.model.id].get_ydata(), expected)


def test_the_overview_says_what_each_part_is_of() -> None:
    said = words(overview(DEMO))
    assert "digits, 599 images: norm of the skip input over norm of the branch" in said
    assert "digits, 500 images: linear CKA" in said
    assert "CKA" not in words(overview(DEMO, with_cka=False))


def test_gaps_of_the_overview_are_explained() -> None:
    assert "the CLS token that enters block 0" in words(overview(DEMO))
    assert "the CLS token that enters block 0" not in words(overview(DEMO, with_cka=False))


def test_models_without_cls_are_drawn_without_and_named() -> None:
    made = [*DEMO, NO_CLS]
    for figure in (norms(made), families(made), overview(made)):
        assert "No values of SigLIP 2: Attention, CLS token, MLP, CLS token" in words(figure)
        assert_readable(figure)
    assert_readable(cka(made))


@pytest.mark.parametrize("draw", [norms, families, cka, overview])
@pytest.mark.parametrize("made", [DEMO, PAPER, DEMO[:1]], ids=["demo", "paper", "one"])
def test_nothing_is_cut_and_no_texts_overlap(draw: object, made: Sequence[Made]) -> None:
    assert callable(draw)
    figure = draw(made)
    assert_readable(figure)
    assert "digits, " in words(figure)


def test_blocks_are_numbered_as_in_the_tables() -> None:
    rows = [
        row._replace(layer_skip=row.layer_skip + 3, layer_branch=row.layer_branch + 3)
        for row in cka_rows(DEMO[:1])
    ]
    ax = axes_named(cka(DEMO[:1], rows), "mlp/all/0")
    assert [text.get_text() for text in ax.texts if text.get_text().isdecimal()] == ["3", "8"]


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="no values to draw"):
        norms(DEMO, [])
    with pytest.raises(AnalysisError, match="no values to draw"):
        cka(DEMO, [])
