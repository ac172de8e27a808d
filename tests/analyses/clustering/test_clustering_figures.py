from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, axes_named, lines, words
from tests.figures.drawings import figure_of, panels_of
from tests.figures.made_tables import DEMO, PAPER, Made, clustering_rows
from vitfeat.analyses.clustering.across import SCORING
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.curves import best_points, score_points
from vitfeat.figures.models import Model

NO_CLS = Made(Model("siglip", "SigLIP 2", "siglip2", "6x64/4@32"), has_cls=False)
ALL = ("by_layer", "families", "best", "overview")


def drawn(made: Sequence[Made], draw: str, rows: Sequence[ScoreRow] | None = None) -> Figure:
    return figure_of(SCORING, draw, made, clustering_rows(made) if rows is None else rows)


def of_seeds(rows: Sequence[ScoreRow], model: str, layer: int, score: str = "ari") -> list[float]:
    wanted = (model, layer, "mean", score)
    found = [r for r in rows if (r.model, r.layer, r.features, r.score) == wanted]
    return [row.value for row in found if row.group]


def test_lines_are_means_over_seeds_and_bands_all_seeds() -> None:
    rows = clustering_rows(DEMO)
    ax = axes_named(drawn(DEMO, "by_layer"), "digits/ari/mean")
    found = lines(ax)
    for made in DEMO:
        expected = [np.mean(of_seeds(rows, made.model.id, layer)) for layer in range(6)]
        np.testing.assert_allclose(found[made.model.id].get_ydata(), expected, rtol=1e-12)
    table = {
        (r.model, r.layer): r
        for r in score_points(panels_of(SCORING, DEMO, rows), "clustering")
        if (r.score, r.features) == ("ari", "mean")
    }
    for (model, layer), row in table.items():
        seeds = of_seeds(rows, model, layer)
        assert (row.low, row.high) == (min(seeds), max(seeds))
        assert row.value == lines(ax)[model].get_ydata()[layer]


def test_shuffled_labels_and_the_untrained_model_are_references() -> None:
    rows = clustering_rows(DEMO)
    figure = drawn(DEMO, "by_layer")
    ax = axes_named(figure, "digits/ari/mean")
    (line,) = (line for line in ax.lines if line.get_label() == "baseline")
    expected = [
        max(np.mean(of_seeds(rows, made.model.id, at, "ari_shuffled")) for made in DEMO)
        for at in range(6)
    ]
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    said = words(figure)
    assert said.count("shuffled labels, highest") == 6
    assert "Shuffled labels, highest: of the models, layer by layer." in said
    assert "Grey area: below an untrained model." in said
    # The grey area ends at the untrained model's line.
    areas = [c for c in ax.collections if c.get_alpha() is None and c.get_label() != "leaders"]
    (area,) = areas
    top = area.get_paths()[0].vertices
    for at, value in enumerate(lines(ax)["demo-random"].get_ydata()):
        assert top[top[:, 0] == at][:, 1].max() == pytest.approx(value)
    for row in score_points(panels_of(SCORING, DEMO, rows), "clustering"):
        if (row.score, row.features) == ("ari", "mean"):
            seeds = of_seeds(rows, row.model, row.layer, "ari_shuffled")
            assert row.chance == pytest.approx(np.mean(seeds), rel=1e-12)


def test_without_baselines_none_is_mentioned() -> None:
    rows = [row for row in clustering_rows(DEMO[:3]) if not row.score.endswith("_shuffled")]
    for draw in ALL:
        figure = drawn(DEMO[:3], draw, rows)
        assert "shuffled" not in words(figure)
        assert "Grey area" not in words(figure)
        assert_readable(figure)


def test_scores_of_a_row_have_one_scale() -> None:
    figure = drawn(DEMO, "by_layer")
    for score in ("nmi", "ari", "purity"):
        cls, mean = (axes_named(figure, f"digits/{score}/{f}") for f in ("cls", "mean"))
        assert cls.get_ylim() == mean.get_ylim()
        assert cls.get_position().y0 == mean.get_position().y0


def test_best_layers_are_found() -> None:
    rows = clustering_rows(PAPER)
    panels = panels_of(SCORING, PAPER, rows)
    table = {(r.model, r.features, r.score): r for r in best_points(panels, "clustering")}
    assert len(table) == 26 * 2 * 3
    for made in PAPER:
        means = [np.mean(of_seeds(rows, made.model.id, at)) for at in range(made.depth)]
        row = table[made.model.id, "mean", "ari"]
        assert row.layer == int(np.argmax(means))
        assert row.value == pytest.approx(max(means))
        assert row.depth == row.layer / (made.depth - 1)
        shuffled = of_seeds(rows, made.model.id, row.layer, "ari_shuffled")
        assert row.chance == pytest.approx(np.mean(shuffled))
    figure = drawn(PAPER, "best")
    for made in PAPER:
        at = lines(axes_named(figure, "ari"))[f"{made.model.id}/mean"]
        assert at.get_xdata()[0] == table[made.model.id, "mean", "ari"].value
        assert round(at.get_ydata()[0]) == PAPER.index(made)
        depth = lines(axes_named(figure, "depth"))[f"{made.model.id}/mean"]
        assert depth.get_xdata()[0] == table[made.model.id, "mean", "nmi"].depth
    colours = [label.get_color() for label in axes_named(figure, "nmi").get_yticklabels()]
    assert colours == [style.family_colour(made.model.family) for made in PAPER]


def test_the_first_of_equal_layers_is_best_and_nan_none() -> None:
    rows = [row._replace(value=0.5) for row in clustering_rows(DEMO[:1])]
    panels = panels_of(SCORING, DEMO[:1], rows)
    assert {one.layer for one in best_points(panels, "clustering")} == {0}
    rows = [row._replace(value=np.nan if row.layer < 2 else 0.5) for row in rows]
    panels = panels_of(SCORING, DEMO[:1], rows)
    assert {one.layer for one in best_points(panels, "clustering")} == {2}
    rows = [row._replace(value=np.nan) for row in rows]
    assert list(best_points(panels_of(SCORING, DEMO[:1], rows), "clustering")) == []


def test_depth_counts_the_networks_layers_where_features_are_of_some() -> None:
    rows = clustering_rows(DEMO[:2])
    rows += [
        ScoreRow(
            "clustering", "demo-clip", "digits", 3, "attention_mean", "k=8", "nmi", "", 599, 0.4
        )
    ]
    panels = panels_of(SCORING, DEMO[:2], rows)
    (row,) = (r for r in score_points(panels, "clustering") if r.features == "attention_mean")
    assert (row.layer, row.depth) == (3, 3 / 5)
    for draw in ALL:
        assert_readable(drawn(DEMO[:2], draw, rows))


@pytest.mark.parametrize("draw", ALL)
def test_models_without_cls_are_drawn_without_and_named(draw: str) -> None:
    figure = drawn([*DEMO, NO_CLS], draw)
    said = words(figure)
    assert "No values of SigLIP 2: NMI, CLS token" in said
    assert "digits, 599 images" in said
    assert "k-means with k = 10." in said
    assert_readable(figure)


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("made", [DEMO, PAPER, DEMO[:1]], ids=["demo", "paper", "one"])
def test_nothing_is_cut_and_no_texts_overlap(draw: str, made: Sequence[Made]) -> None:
    assert_readable(drawn(made, draw))


@pytest.mark.parametrize("draw", ALL)
def test_nothing_to_draw_is_an_error(draw: str) -> None:
    with pytest.raises(AnalysisError, match="no values to draw"):
        drawn(DEMO, draw, [])
