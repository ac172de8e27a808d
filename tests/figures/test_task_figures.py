from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.figures.canvas import assert_readable, axes_named, lines, shown_texts, words
from tests.figures.drawings import figure_of, panels_of
from tests.figures.made_tables import DEMO, PAPER, Made, models
from tests.figures.made_tasks import CATEGORIES, SEQUENCES, task_rows
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError
from vitfeat.figures import groups
from vitfeat.figures.curves import best_points, score_points
from vitfeat.figures.models import Model

NO_CLS = Made(Model("siglip", "SigLIP 2", "siglip2", "6x64/4@32"), has_cls=False)


def drawn(
    task: str, name: str, made: Sequence[Made], rows: Sequence[ScoreRow] | None = None
) -> Figure:
    figures = {**scored()[task].figures, "overview": "overview"}
    given = task_rows(task, made) if rows is None else rows
    return figure_of(scored()[task], figures[name], made, given)


EVERY = [(task, name) for task in scored() for name in (*scored()[task].figures, "overview")]


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_nothing_is_cut_and_no_texts_overlap(task: str, name: str) -> None:
    figure = drawn(task, name, DEMO)
    assert_readable(figure)
    assert "digits" in words(figure)


@pytest.mark.parametrize(
    ("task", "name"),
    [("saliency", "by_layer"), ("knn", "families"), ("regions", "best"), ("keypoints", "groups")],
)
def test_figures_of_26_models_can_be_read(task: str, name: str) -> None:
    assert_readable(drawn(task, name, PAPER))


@pytest.mark.parametrize(("task", "name"), [one for one in EVERY if one[0] in ("knn", "video")])
def test_a_single_model_is_drawn(task: str, name: str) -> None:
    assert_readable(drawn(task, name, DEMO[:1]))


def test_tasks_have_the_figures_that_are_planned() -> None:
    more = {
        task: set(one.figures) - {"by_layer", "families", "best"} for task, one in scored().items()
    }
    assert more == {
        "clustering": set(),
        "knn": {"details"},
        "linear_probe": set(),
        "retrieval": {"details"},
        "video": {"details", "groups"},
        "keypoints": {"details", "groups"},
        "regions": set(),
        "saliency": {"details", "groups"},
    }


def chosen(
    rows: Sequence[ScoreRow], model: str, score: str, variant: str, kind: str
) -> list[float]:
    found = {
        r.layer: r.value
        for r in rows
        if (r.model, r.score, r.group) == (model, score, "")
        and (r.variant.startswith(variant) if variant == "penalty" else r.variant == variant)
        and r.features == kind
    }
    return [found[layer] for layer in sorted(found)]


@pytest.mark.parametrize(
    ("task", "axes", "score", "variant", "kind"),
    [
        ("knn", "top1 k=20/mean", "top1", "k=20", "mean"),
        ("linear_probe", "top5/cls", "top5", "penalty", "cls"),
        ("retrieval", "map hard/cls", "map", "hard", "cls"),
        ("video", "j_mean/spatial", "j_mean", "", "spatial"),
        ("keypoints", "pck_image 0.05/spatial", "pck_image", "0.05", "spatial"),
        ("regions", "purity/part", "purity", "part", "regions"),
        ("saliency", "iou merged/attn_centre", "iou", "merged", "attn_centre"),
    ],
)
def test_lines_are_the_numbers_of_the_tables(
    task: str, axes: str, score: str, variant: str, kind: str
) -> None:
    rows = task_rows(task, DEMO)
    found = lines(axes_named(drawn(task, "by_layer", DEMO), f"digits/{axes}"))
    assert set(found) - {"baseline"} == {one.model.id for one in DEMO}
    for one in DEMO:
        expected = chosen(rows, one.model.id, score, variant, kind)
        np.testing.assert_array_equal(found[one.model.id].get_ydata(), expected)


def test_points_beside_are_those_of_the_tables() -> None:
    rows = task_rows("keypoints", DEMO)
    panels = panels_of(scored()["keypoints"], DEMO, rows)
    table = list(score_points(panels, "keypoints"))
    assert len(table) == 3 * 6 * len(DEMO)
    given = {(r.model, r.layer, r.variant, r.score): r for r in rows if not r.group}
    for one in table:
        mine = given[one.model, one.layer, one.variant, one.score]
        assert (one.value, one.n, one.features) == (mine.value, mine.n, "spatial")
        assert one.low == one.high == one.value
        assert one.chance == given[one.model, one.layer, one.variant, "chance_image"].value
        assert one.depth == one.layer / 5
    top = list(best_points(panels, "keypoints"))
    assert len(top) == 3 * len(DEMO)
    for one in top:
        values = [p for p in table if (p.model, p.variant) == (one.model, one.variant)]
        assert one == max(values, key=lambda p: (p.value, -p.layer))


def test_regions_have_a_kind_for_each_level_and_bands_over_seeds() -> None:
    rows = task_rows("regions", DEMO[:2])
    panels = panels_of(scored()["regions"], DEMO[:2], rows)
    assert [panel.name for panel in panels] == [
        f"{score}/{level}" for score in ("nmi", "ari", "purity") for level in ("object", "part")
    ]
    for one in score_points(panels, "regions"):
        seeds = [
            r.value
            for r in rows
            if (r.model, r.layer, r.variant, r.score)
            == (one.model, one.layer, one.variant, one.score)
            and r.group.startswith("seed=")
        ]
        assert len(seeds) == 3
        assert (one.low, one.high) == (min(seeds), max(seeds))
        assert one.value == pytest.approx(np.mean(seeds))
    figure = drawn("regions", "by_layer", DEMO[:2])
    assert "Bands: from the least to the greatest seed." in words(figure)
    assert "Bands" not in words(drawn("knn", "by_layer", DEMO[:2]))


def test_a_single_level_has_no_columns_of_levels() -> None:
    rows = [row for row in task_rows("regions", DEMO) if row.variant == "object"]
    figure = drawn("regions", "by_layer", DEMO, rows)
    assert_readable(figure)
    assert "parts" not in words(figure)
    assert "3,000 regions; objects." in words(figure)


def test_chance_is_a_dotted_line_where_tables_have_it() -> None:
    rows = task_rows("keypoints", DEMO)
    ax = axes_named(drawn("keypoints", "by_layer", DEMO), "digits/pck_image 0.01")
    baselines = [line for line in ax.lines if line.get_label() == "baseline"]
    expected = chosen(rows, "demo-clip", "chance_image", "0.01", "spatial")
    # The same of all models: one line.
    assert len(baselines) == 1
    np.testing.assert_array_equal(baselines[0].get_ydata(), expected)
    families = drawn("keypoints", "families", DEMO)
    assert "highest" not in words(families)
    assert "chance" not in words(drawn("knn", "by_layer", DEMO))
    assert "chance, same layer" in words(drawn("keypoints", "best", DEMO))


def test_of_unlike_levels_of_chance_the_highest_of_a_size_is_drawn() -> None:
    made = [PAPER[1], PAPER[3], PAPER[5], PAPER[-1]]
    rows = [
        row._replace(value=row.value + 0.01 * row.layer + 0.1 * (row.model == "random-B/16"))
        if row.score == "iou_chance"
        else row
        for row in task_rows("saliency", made)
    ]
    figure = drawn("saliency", "by_layer", made, rows)
    assert_readable(figure)
    assert "Chance, highest: of the models, layer by layer." in words(figure)
    found = {
        str(ax.get_label()): [line for line in ax.lines if line.get_label() == "baseline"]
        for ax in figure.axes
        if "iou best_head/attn_cls" in str(ax.get_label())
    }
    assert sum(map(len, found.values())) == len(found) > 1
    for label, (line,) in found.items():
        group = [one for one in made if one.depth == len(line.get_ydata())]
        mine = [
            [
                r.value
                for r in rows
                if (r.model, r.features, r.score) == (one.model.id, "attn_cls", "iou_chance")
            ]
            for one in group
        ]
        np.testing.assert_array_equal(line.get_ydata(), np.max(mine, axis=0), err_msg=label)


@pytest.mark.parametrize("task", scored())
def test_figures_say_what_their_scores_are(task: str) -> None:
    def told(text: str) -> str:
        return text.replace(" ", "")

    for name in ("by_layer", "families", "best", "overview"):
        assert told(scored()[task].meaning) in told(words(drawn(task, name, DEMO[:2])))
    if scored()[task].details:
        assert told(scored()[task].details_meaning) in told(words(drawn(task, "details", DEMO[:2])))


def test_nothing_is_called_worse_than_untrained_where_less_is_better() -> None:
    figure = drawn("video", "details", DEMO)
    decay, recall = (axes_named(figure, f"digits/{name}") for name in ("j_decay", "j_recall"))

    def areas(ax: Axes) -> int:
        return len([c for c in ax.collections if c.get_label() != "leaders"])

    assert (areas(decay), areas(recall)) == (0, 1)
    assert "less is better" in words(figure)


def test_details_are_of_the_features_that_headlines_prefer() -> None:
    assert "; CLS token." in words(drawn("knn", "details", DEMO))
    said = words(drawn("knn", "details", [NO_CLS]))
    assert "; mean of spatial tokens." in said
    for k in (10, 20, 100, 200):
        assert f"k = {k}" in said


@pytest.mark.parametrize("name", ["by_layer", "families", "best", "overview"])
def test_models_without_cls_are_drawn_without_and_named(name: str) -> None:
    figure = drawn("retrieval", name, [*DEMO, NO_CLS])
    assert "No values of SigLIP 2: mAP, medium, CLS token" in words(figure)
    assert_readable(figure)


def test_counts_are_of_what_is_averaged() -> None:
    assert "68 to 70 query images" in words(drawn("retrieval", "by_layer", DEMO))
    assert "61 objects" in words(drawn("video", "by_layer", DEMO))
    assert "12,234 image pairs" in words(drawn("keypoints", "by_layer", DEMO))
    assert "88,328 points" in words(drawn("keypoints", "details", DEMO))
    assert "3,000 regions" in words(drawn("regions", "best", DEMO))


@pytest.mark.parametrize("name", ["families", "by_layer", "best"])
def test_numbers_of_many_decimals_touch_nothing(name: str) -> None:
    made = DEMO[:3]
    rows = [row._replace(value=1 - row.value / 100) for row in task_rows("linear_probe", made)]
    figure = drawn("linear_probe", name, made, rows)
    assert_readable(figure)
    if name == "families":
        assert any(len(text.get_text()) > 5 for text in shown_texts(figure))


def test_nan_has_a_gap_and_is_not_the_best() -> None:
    made = DEMO[:3]
    rows = [
        row._replace(value=np.nan)
        if row.model == "demo-clip" or (row.model == "demo-dino" and row.layer > 2)
        else row
        for row in task_rows("linear_probe", made)
    ]
    for name in (*scored()["linear_probe"].figures, "overview"):
        assert_readable(drawn("linear_probe", name, made, rows))
    panels = panels_of(scored()["linear_probe"], made, rows)
    found = {one.model: one.layer for one in best_points(panels, "linear_probe")}
    assert set(found) == {"demo-supervised", "demo-dino"}
    assert found["demo-dino"] <= 2


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_nothing_to_draw_is_an_error(task: str, name: str) -> None:
    with pytest.raises(AnalysisError, match="no values to draw"):
        drawn(task, name, DEMO, [])
    odd = [ScoreRow(task, "demo-clip", "digits", 0, "x", "y", "other", "", 1, 0.5)]
    with pytest.raises(AnalysisError, match="no values to draw"):
        drawn(task, name, DEMO, odd)


def test_categories_are_of_the_layer_that_is_best_for_all() -> None:
    rows = task_rows("keypoints", DEMO)
    found = groups.groups_of(scored()["keypoints"], "digits", rows, models(DEMO))
    assert found.names == ["", *CATEGORIES]
    for one in DEMO:
        curve = chosen(rows, one.model.id, "pck_image", "0.1", "spatial")
        mine = [r for r in found.rows if r.model == one.model.id]
        assert {r.layer for r in mine} == {int(np.argmax(curve))}
        assert len(mine) == 1 + len(CATEGORIES)
    assert set(found.rows) <= set(rows)
    figure = drawn("keypoints", "groups", DEMO)
    texts = {text.get_text() for text in shown_texts(figure)}
    assert set(CATEGORIES) | {"all"} <= texts
    assert {f"{100 * row.value:.1f}" for row in found.rows} <= texts


def test_sequences_are_means_over_their_objects() -> None:
    rows = task_rows("video", DEMO)
    found = groups.groups_of(scored()["video"], "digits", rows, models(DEMO))
    assert found.names == ["", *SEQUENCES]
    for one in found.rows:
        if one.group:
            objects = [
                r.value
                for r in rows
                if (r.model, r.layer, r.score) == (one.model, one.layer, "jf_mean")
                and r.group.startswith(f"{one.group}/")
            ]
            assert one.value == pytest.approx(np.mean(objects))
            assert len(objects) in (1, 2)


def test_the_greatest_of_every_column_is_framed() -> None:
    rows = task_rows("video", DEMO)
    found = groups.groups_of(scored()["video"], "digits", rows, models(DEMO))
    ax = axes_named(drawn("video", "groups", DEMO), "heat map")
    framed = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_linewidth() > 0]
    places = sorted({(round(p.get_x(), 3), round(p.get_y() + p.get_height() / 2)) for p in framed})
    assert len(places) == len(found.names)
    for (_, row), name in zip(places, found.names, strict=True):
        values = {r.model: r.value for r in found.rows if r.group == name}
        assert DEMO[row].model.id == max(values, key=lambda model: values[model])


def test_heads_are_drawn_one_by_one() -> None:
    rows = task_rows("saliency", [*DEMO, NO_CLS])
    panels = panels_of(scored()["saliency"], [*DEMO, NO_CLS], rows, "breakout")
    assert [panel.name for panel in panels] == ["attn_cls", "attn_mean", "attn_centre"]
    assert [len(panel.curves) for panel in panels] == [7, 8, 8]
    for panel in panels:
        for heads in panel.curves:
            for (layer, head), value in np.ndenumerate(heads.members):
                (mine,) = (
                    r.value
                    for r in rows
                    if (r.model, r.features, r.layer, r.variant, r.group)
                    == (heads.model.id, panel.name, layer, "head", str(head))
                )
                assert value == mine
