from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from tests.figures.canvas import assert_readable, axes_named, laid_out, lines, shown_texts, words
from tests.figures.made_tables import DEMO, PAPER, Made, models
from tests.figures.made_tasks import task_rows
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError
from vitfeat.figures import all_tasks, style
from vitfeat.figures.columns import Columns, Head
from vitfeat.figures.curves import score_points
from vitfeat.figures.heat_map import NOTE_SIZE, Cells, colours, greatest, heat_map
from vitfeat.figures.models import Model

NO_CLS = Made(Model("siglip", "SigLIP 2", "siglip2", "6x64/4@32"), has_cls=False)

REAL = {
    "clustering": ["imagenet-50"],
    "knn": ["imagenet"],
    "linear_probe": ["imagenet"],
    "retrieval": ["roxford5k", "rparis6k"],
    "video": ["davis-2017"],
    "keypoints": ["spair-71k"],
    "regions": ["coco", "partimagenet"],
    "saliency": ["coco", "partimagenet"],
}


COLUMNS = 13
"""Each dataset's headline, two of regions: objects and parts."""


def all_rows(made: Sequence[Made], tasks: Iterable[str] = scored()) -> list[ScoreRow]:
    return [
        row
        for task in tasks
        for dataset in REAL[task]
        for row in task_rows(task, made, dataset, groups=False)
    ]


@pytest.mark.parametrize("made", [DEMO, PAPER, DEMO[:1]], ids=["demo", "paper", "one"])
def test_nothing_is_cut_and_no_texts_overlap(made: Sequence[Made]) -> None:
    rows = all_rows(made)
    found = all_tasks.headlines(rows, models(made))
    assert_readable(all_tasks.heat_map_figure(found))
    assert_readable(all_tasks.depths_figure(found))
    panels = all_tasks.layers_panels(rows, models(made))
    assert_readable(all_tasks.layers_figure(panels, models(made)))


@pytest.mark.parametrize("task", scored())
def test_a_single_task_is_drawn(task: str) -> None:
    rows = all_rows(DEMO, [task])
    found = all_tasks.headlines(rows, models(DEMO))
    assert_readable(all_tasks.heat_map_figure(found))
    assert_readable(all_tasks.depths_figure(found))


def test_cells_hold_value_and_layer_of_the_best() -> None:
    rows = all_rows(DEMO)
    found = all_tasks.headlines(rows, models(DEMO))
    table = list(found.rows())
    assert len(table) == len(DEMO) * COLUMNS
    for one in table:
        values = {
            r.layer: r.value
            for r in rows
            if (r.task, r.dataset, r.model) == (one.task, one.dataset, one.model)
            and (r.score, r.features) == (one.score, one.features)
            and (r.variant == one.variant or one.task == "linear_probe")
        }
        assert len(values) == 6
        assert one.value == max(values.values())
        assert one.layer == min(layer for layer, v in values.items() if v == one.value)
    ax = axes_named(all_tasks.heat_map_figure(found), "heat map")
    cells = [text for text in ax.texts if not isinstance(text, Annotation)]
    written = [(text.get_position()[1], text.get_text()) for text in cells]
    for place, one in enumerate(DEMO):
        mine = [text for row, text in written if row == place]
        expected = [
            text
            for r in table
            if r.model == one.model.id
            for text in (f"{100 * r.value:.1f}", str(r.layer))
        ]
        assert sorted(mine) == sorted(expected)
    labels = [label.get_color() for label in ax.get_yticklabels()]
    assert labels == [style.family_colour(made.model.family) for made in DEMO]


def test_colours_are_scaled_within_each_column() -> None:
    values = np.array([[0.2, 0.90], [0.3, 0.91], [0.4, 0.92]])
    cells = Cells([Head("A", "a"), Head("B", "b")], values, [[""] * 2] * 3)
    figure = heat_map(cells, models(DEMO[:3]), title="t", note="n")
    ax = axes_named(figure, "heat map")
    ends = colours()(0.0), colours()(0.5), colours()(1.0)
    patches = [p for p in ax.patches if isinstance(p, Rectangle)]
    np.testing.assert_allclose([p.get_facecolor() for p in patches], ends * 2, atol=0.01)
    common = Cells(cells.heads, values, cells.notes, own_scales=False)
    ax = axes_named(heat_map(common, models(DEMO[:3]), title="t", note="n", scale="s"), "heat map")
    shares = ((values - 0.2) / 0.72).T.ravel()
    found = [p.get_facecolor() for p in ax.patches]
    np.testing.assert_allclose(found, colours()(shares), atol=0.01)


def test_all_that_are_equal_as_written_are_best_and_one_alone_is_not() -> None:
    assert greatest([0.5001, 0.50013, 0.4]) == {"50.0"}
    assert greatest([0.5, np.nan]) == set()
    assert greatest([]) == set()
    values = np.array([[0.5001], [0.50013], [0.4]])
    figure = heat_map(
        Cells([Head("", "a")], values, [[""]] * 3), models(DEMO[:3]), title="t", note="n"
    )
    bold = [t.get_text() for t in axes_named(figure, "heat map").texts if t.get_weight() == "bold"]
    assert bold == ["50.0", "50.0"]
    assert_readable(figure)


def test_absent_values_are_hatched_and_named() -> None:
    rows = [
        row
        for row in all_rows(DEMO)
        if not (row.task == "video" and row.model == "demo-clip") and row.model != "demo-mae"
    ]
    rows = [
        r._replace(value=np.nan) if (r.task, r.model) == ("knn", "demo-dino") else r for r in rows
    ]
    found = all_tasks.headlines(rows, models(DEMO))
    figure = all_tasks.heat_map_figure(found)
    assert_readable(figure)
    hatched = [p for p in axes_named(figure, "heat map").patches if p.get_hatch()]
    assert len(hatched) == 2
    said = words(figure)
    assert "Hatched: no value." in said
    assert "No values of MAE." in said
    depths = all_tasks.depths_figure(found)
    assert_readable(depths)
    assert "No values of MAE." in words(depths)
    assert "Hatched" not in words(
        all_tasks.heat_map_figure(all_tasks.headlines(all_rows(DEMO), models(DEMO)))
    )


def test_a_model_without_cls_is_marked_where_it_has_other_features() -> None:
    made = [*DEMO, NO_CLS]
    found = all_tasks.headlines(all_rows(made), models(made))
    figure = all_tasks.heat_map_figure(found)
    assert_readable(figure)
    marked = [t for t in shown_texts(figure) if t.get_text().endswith("\N{DAGGER}")]
    assert len(marked) == 1 + 1 + 1 + 2 + 2
    assert "\N{DAGGER} Mean of spatial tokens instead of the column's features: SigLIP 2." in words(
        figure
    )
    assert "Mean of spatial queries instead" in words(all_tasks.depths_figure(found))


def test_dots_stand_at_the_depth_of_the_best_layer_and_a_bar_at_their_median() -> None:
    found = all_tasks.headlines(all_rows(PAPER), models(PAPER))
    ax = axes_named(all_tasks.depths_figure(found), "depths")
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    bars = [line for line in ax.lines if line.get_label() == "_median"]
    assert len(dots) == len(bars) == len(found.columns) == COLUMNS
    # Rows and both ends of every column.
    ends = [c for c in ax.collections if isinstance(c, LineCollection) and c.get_label() != "_ends"]
    for column, dot, bar, row in zip(found.found, dots, bars, ends, strict=True):
        (left, _), (right, _) = row.get_segments()[0]
        depths = (dot.get_offsets()[:, 0] - left) / (right - left)
        expected = [column[made.model.id].depth for made in PAPER]
        np.testing.assert_allclose(depths, expected, atol=1e-9)
        np.testing.assert_array_equal(dot.get_offsets()[:, 1], range(len(PAPER)))
        trained = [
            d for d, made in zip(expected, PAPER, strict=True) if made.model.family != "random"
        ]
        at = (bar.get_xdata()[0] - left) / (right - left)
        assert at == pytest.approx(np.median(trained))


@pytest.mark.parametrize("made", [DEMO, PAPER])
def test_numbers_below_columns_do_not_run_together(made: Sequence[Made]) -> None:
    """Between the 1 of a column and the 0 of the next is room for two digits more."""
    figure = all_tasks.depths_figure(all_tasks.headlines(all_rows(made), models(made)))
    renderer = laid_out(figure)
    numbers = [t for t in shown_texts(figure) if t.get_text() in ("0", "1")]
    boxes = sorted((t.get_window_extent(renderer) for t in numbers), key=lambda box: box.x0)
    assert len(boxes) >= 2
    assert len(boxes) % 2 == 0
    for left, right in pairwise(boxes):
        assert right.x0 - left.x1 > 2 * left.width


def test_headlines_by_layer_are_those_of_the_tables() -> None:
    rows = all_rows(DEMO)
    panels = all_tasks.layers_panels(rows, models(DEMO))
    assert len(panels) == COLUMNS
    figure = all_tasks.layers_figure(panels, models(DEMO))
    given = {
        (
            r.task,
            r.dataset,
            r.model,
            r.layer,
            r.features,
            r.score,
            scored()[r.task].fixed(r.variant),
        ): r.value
        for r in rows
    }
    drawn = [point for task, panel in panels for point in score_points([panel], task)]
    for one in drawn:
        key = (
            one.task,
            one.dataset,
            one.model,
            one.layer,
            one.features,
            one.score,
            one.variant,
        )
        assert given[key] == one.value
    found = lines(axes_named(figure, "davis-2017/jf_mean/spatial"))
    expected = [
        r.value for r in rows if (r.task, r.model, r.score) == ("video", "demo-mae", "jf_mean")
    ]
    np.testing.assert_array_equal(found["demo-mae"].get_ydata(), expected)
    said = words(figure)
    for name in ("k-NN on imagenet (top-1, k = 20)", "Keypoints on spair-71k (PCK@0.1)"):
        assert name in said


def test_models_that_are_not_asked_for_count_for_nothing() -> None:
    rows = all_rows(DEMO)
    some = models(DEMO[:2])
    found = all_tasks.headlines(rows, some)
    assert {row.model for row in found.rows()} == {model.id for model in some}


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="no values to draw"):
        all_tasks.headlines([], models(DEMO))
    with pytest.raises(AnalysisError, match="no values to draw"):
        all_tasks.headlines(all_rows(DEMO[:1]), models(DEMO[1:]))


def test_columns_are_as_wide_as_their_longest_words_need() -> None:
    plain = Columns([Head("", "a"), Head("", "b")], 0.5)
    assert plain.widths == [0.5, 0.5]
    assert plain.lefts == [0, 0.5]
    wide = Columns([Head("", "partimagenet-validation"), Head("", "b")], 0.5)
    assert 0.6 < wide.widths[0] < 0.95
    assert wide.widths[1] == wide.widths[0]
    heading = Columns([Head("Unbreakableheading", "a"), Head("B", "b")], 0.5)
    assert heading.widths[0] > 0.9
    assert heading.widths[1] == 0.5
    assert heading.lefts[1] > heading.widths[0]


def test_turned_texts_need_room_for_their_lines_alone() -> None:
    long = Head("", "partimagenet-validation\nIoU\n")
    assert Columns([long], 0.1, turned=True).widths[0] < 0.3
    assert Columns([long], 0.4, turned=True).widths == [0.4]
    three = Columns([long, Head("", "a\nb\nc")], 0.1, turned=True)
    assert 0.3 < three.widths[0] < 0.45


def test_the_figures_of_all_tasks_fit_on_a_page() -> None:
    """Texts of 6.5 points are at least 5.5 where a figure is printed 6.9 inches wide."""
    found = all_tasks.headlines(all_rows(PAPER), models(PAPER))
    for figure in (all_tasks.heat_map_figure(found), all_tasks.depths_figure(found)):
        assert figure.get_figwidth() < 6.9 * style.SMALL_SIZE / 5.5
    assert NOTE_SIZE >= 5.5


def test_values_and_notes_stay_in_their_cells() -> None:
    values = np.array([[1.0, 0.999], [0.5, 1.0]])
    cells = Cells([Head("", "a"), Head("", "b")], values, [["11†", "2"], ["23", "31†"]])
    figure = heat_map(cells, models(DEMO[:2]), title="t", note="n")
    ax = axes_named(figure, "heat map")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [
        patch.get_window_extent()
        for patch in ax.patches
        if isinstance(patch, Rectangle) and patch.get_height() > 0.5
    ]
    texts = [text for text in ax.texts if not isinstance(text, Annotation)]
    assert len(texts) == 8
    for text in texts:
        box = text.get_window_extent(canvas.get_renderer())
        assert any(cell.x0 <= box.x0 and box.x1 <= cell.x1 for cell in boxes), text


def test_a_single_model_has_nothing_framed_and_no_scale_of_its_own() -> None:
    found = all_tasks.headlines(all_rows(DEMO[:1]), models(DEMO[:1]))
    figure = all_tasks.heat_map_figure(found)
    assert "framed" not in words(figure)
    assert [ax.get_label() for ax in figure.axes] == ["heat map"]


def test_words_of_headings_are_never_broken() -> None:
    rows = [row for row in all_rows(DEMO) if row.dataset not in ("rparis6k", "partimagenet")]
    found = all_tasks.headlines(rows, models(DEMO))
    for figure in (all_tasks.heat_map_figure(found), all_tasks.depths_figure(found)):
        said = {text.get_text() for text in shown_texts(figure)}
        assert {"k-NN", "Linear\nprobe", "Retrieval", "Video\nobjects", "Keypoints"} <= said


def test_features_that_tasks_choose_from_are_said() -> None:
    panels = all_tasks.layers_panels(all_rows(DEMO), models(DEMO))
    said = words(all_tasks.layers_figure(panels, models(DEMO)))
    assert "CLS token: Clusters, k-NN, Linear probe, Retrieval. CLS query: Saliency." in said
