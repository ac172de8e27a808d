from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from tests.figures.legible import assert_nothing_is_cut_and_no_texts_overlap, texts
from vitfeat.analyses.cka import figures_job
from vitfeat.analyses.cka.figures import all_pairs, last_layer, pair
from vitfeat.analyses.cka.figures_job import draw_pair
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.rows import CkaRow
from vitfeat.errors import AnalysisError, ConfigError
from vitfeat.figures import style
from vitfeat.figures.cka_values import DrawnCka, Similarity, similarities
from vitfeat.figures.models import Model
from vitfeat.tables import read_table, write_table

MODELS = [
    Model("a", "Alpha S/16", "dino"),
    Model("b", "Beta B/16", "clip"),
    Model("c", "Gamma L/14", "ours"),
]
DEPTHS = {"a": 3, "b": 2, "c": 4}
NAMES = ("all", "last_layer")


def cell(a: str, i: int, b: str, j: int) -> float:
    """A value that tells its place, the same from either side."""
    first, second = sorted([("abc".index(a), i), ("abc".index(b), j)])
    return (first[0] * 1000 + first[1] * 100 + second[0] * 10 + second[1]) / 5000 + 0.01


def similarity(dataset: str = "digits", tokens: str = "cls", **change: object) -> Similarity:
    values = {
        (a, b): np.array([[cell(a, i, b, j) for j in range(DEPTHS[b])] for i in range(DEPTHS[a])])
        for a in "abc"
        for b in "abc"
        if a <= b
    }
    fields = {"estimator": "debiased", "n_images": 1234, "values": values} | change
    layers = {model: tuple(range(depth)) for model, depth in DEPTHS.items()}
    return Similarity(dataset=dataset, tokens=tokens, layers=layers, **fields)


def blocks(figure: Figure) -> dict[str, Axes]:
    return {str(ax.get_label()): ax for ax in figure.axes if "/" in str(ax.get_label())}


def image_at(ax: Axes, x: float, y: float) -> AxesImage | None:
    found = []
    for image in ax.get_images():
        left, right, bottom, top = image.get_extent()
        assert image.origin == "lower"
        if left < x < right and bottom < y < top:
            found.append(image)
    assert len(found) <= 1
    return found[0] if found else None


def pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def pixel(ax: Axes, drawn: np.ndarray, x: float, y: float) -> np.ndarray:
    column, row = ax.transData.transform((x, y))
    return drawn[len(drawn) - 1 - int(row), int(column)]


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_every_pair_of_layers_is_at_its_place(row: int, column: int) -> None:
    ax = blocks(all_pairs([similarity()], MODELS))["digits/cls"]
    a, b = MODELS[row].id, MODELS[column].id
    image = image_at(ax, column + 0.5, row + 0.5)
    assert image is not None
    left, right, bottom, top = image.get_extent()
    assert (int(left), int(right), int(bottom), int(top)) == (column, column, row, row)
    values = image.get_array()
    assert values.shape == (DEPTHS[a], DEPTHS[b])
    # Rows go up with the layers of the model at the left, columns right with the one below.
    for i in range(DEPTHS[a]):
        for j in range(DEPTHS[b]):
            assert values[i, j] == cell(a, i, b, j)
    assert (image.norm.vmin, image.norm.vmax) == (0, 1)


def test_pixels_have_the_colours_of_the_values() -> None:
    figure = all_pairs([similarity()], MODELS)
    ax, drawn = blocks(figure)["digits/cls"], pixels(figure)
    colour = style.mpl.colormaps[style.VALUE_COLOURS]
    for (row, i), (column, j) in (((0, 0), (1, 1)), ((1, 1), (0, 0)), ((2, 3), (0, 1))):
        a, b = MODELS[row].id, MODELS[column].id
        at = column + (j + 0.5) / DEPTHS[b], row + (i + 0.5) / DEPTHS[a]
        expected = np.array(colour(cell(a, i, b, j))[:3]) * 255
        np.testing.assert_allclose(pixel(ax, drawn, *at), expected, atol=2)
    # White between panels.
    assert pixel(ax, drawn, 1.0, 0.5).min() > 250


def test_last_layers_are_at_their_places() -> None:
    figure = last_layer([similarity()], MODELS)
    ax = blocks(figure)["digits/cls"]
    (image,) = ax.get_images()
    written = {
        (text.get_position()[1] - 0.5, text.get_position()[0] - 0.5): text for text in ax.texts
    }
    for row, a in enumerate(MODELS):
        for column, b in enumerate(MODELS):
            value = cell(a.id, DEPTHS[a.id] - 1, b.id, DEPTHS[b.id] - 1)
            assert image.get_array()[row, column] == value
            assert written[row, column].get_text() == f"{value:.2f}"
            assert written[row, column].get_color() == ("white" if value < 0.6 else "black")


def test_values_are_written_for_few_models_only() -> None:
    few, many = (
        [Model(f"m{index:02}", f"M{index}", "dino") for index in range(count)] for count in (12, 13)
    )
    for models, expected in ((few, 144), (many, 0)):
        ids = [model.id for model in models]
        values = {(a, b): np.array([[0.25]]) for a in ids for b in ids if a <= b}
        one = Similarity("d", "cls", "biased", 10, dict.fromkeys(ids, (0,)), values)
        written = [text for text in texts(last_layer([one], models)) if text.get_text() == "0.25"]
        assert len(written) == expected


def test_datasets_go_down_and_tokens_across() -> None:
    kinds = ("all", "cls", "spatial", "mean")
    given = [similarity(d, t) for d in ("digits", "photos") for t in kinds]
    for draw in (all_pairs, last_layer):
        figure = draw(given, MODELS)
        found = {name: ax.get_position() for name, ax in blocks(figure).items()}
        assert len(found) == 8
        for dataset in ("digits", "photos"):
            across = [found[f"{dataset}/{kind}"].x0 for kind in ("cls", "mean", "spatial", "all")]
            assert across == sorted(across)
        assert found["digits/cls"].y0 > found["photos/cls"].y1
        words = [text.get_text() for text in texts(figure)]
        for word in ("CLS token", "mean of spatial tokens", "spatial tokens", "all tokens"):
            assert words.count(word) == 2
        assert words.count("photos, 1,234 images") == 4
        assert words.count("linear CKA") == 1
        assert any("debiased estimator" in word for word in words)
        # Names stand beside the first column and below the last row only.
        assert words.count("Beta B/16") == 2 + 4


def test_labels_have_family_colours() -> None:
    figure = all_pairs([similarity()], MODELS)
    for model in MODELS:
        colours = {
            to_hex(text.get_color()) for text in texts(figure) if text.get_text() == model.label
        }
        assert colours == {style.family_colour(model.family).lower()}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["dino", "clip", "ours"]
    assert [to_hex(patch.get_facecolor()) for patch in legend.get_patches()] == [
        style.family_colour(model.family).lower() for model in MODELS
    ]


def test_layer_ticks_are_the_layers_numbers() -> None:
    one = similarity()
    layers = {"a": (0, 5, 11), "b": (3, 23), "c": (0, 1, 2, 31)}
    one = Similarity("d", "cls", "debiased", 9, layers, one.values)
    figure = all_pairs([one], MODELS)
    ticks = [text for text in blocks(figure)["d/cls"].texts if text.get_text().isdecimal()]
    below = sorted((t.get_position()[0], t.get_text()) for t in ticks if t.get_position()[1] < 0)
    left = sorted((t.get_position()[1], t.get_text()) for t in ticks if t.get_position()[0] < 0)
    for found in (below, left):
        assert [text for _, text in found] == ["0", "11", "3", "23", "0", "31"]
        assert [int(at) for at, _ in found] == [0, 0, 1, 1, 2, 2]


def test_no_value_is_grey_and_no_pair_is_hatched() -> None:
    values = dict(similarity().values)
    values["a", "b"] = values["a", "b"].copy()
    values["a", "b"][2] = np.nan
    del values["a", "c"]
    one = similarity(values=values)
    grey = np.array(style.mpl.colors.to_rgb(style.NO_VALUE)) * 255
    for draw in (all_pairs, last_layer):
        figure = draw([one], MODELS)
        ax, drawn = blocks(figure)["digits/cls"], pixels(figure)
        near_edge = 0.9 if draw is last_layer else 0.85
        np.testing.assert_allclose(pixel(ax, drawn, 1.2, near_edge), grey, atol=2)
        np.testing.assert_allclose(pixel(ax, drawn, near_edge, 1.2), grey, atol=2)
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert names[-2:] == ["no CKA (nan)", "not computed"]
        hatched = [patch.get_xy() for patch in ax.patches if patch.get_hatch()]
        assert sorted((int(x), int(y)) for x, y in hatched) == [(0, 2), (2, 0)]
    complete = all_pairs([similarity()], MODELS).legends[0].get_texts()
    assert len(complete) == len(MODELS)


def test_values_below_zero_are_shown_as_zero() -> None:
    values = {pair: -0.3 * np.ones_like(v) for pair, v in similarity().values.items()}
    figure = last_layer([similarity(values=values)], MODELS)
    ax, drawn = blocks(figure)["digits/cls"], pixels(figure)
    assert pixel(ax, drawn, 0.1, 0.1).max() < 10
    assert {text.get_text() for text in ax.texts if "." in text.get_text()} == {"0.00"}


def without_b() -> Similarity:
    """The CLS tokens of all models but the second, which has none."""
    one = similarity()
    return Similarity(
        **{
            **vars(one),
            "layers": {k: v for k, v in one.layers.items() if k != "b"},
            "values": {pair: v for pair, v in one.values.items() if "b" not in pair},
        }
    )


@pytest.mark.parametrize("draw", [all_pairs, last_layer])
@pytest.mark.parametrize("others", [[], [similarity(tokens="spatial")]])
def test_a_model_that_was_left_out_has_an_empty_row_and_column(
    draw: Callable[..., Figure], others: list[Similarity]
) -> None:
    figure = draw([without_b(), *others], MODELS, {"b"})
    ax = blocks(figure)["digits/cls"]
    hatched = [patch.get_xy() for patch in ax.patches if patch.get_hatch()]
    places = {(0, 1), (1, 0), (1, 1), (1, 2), (2, 1)}
    assert {(int(x), int(y)) for x, y in hatched} == places
    if draw is all_pairs:
        for column, row in np.ndindex(3, 3):
            at = image_at(ax, column + 0.5, row + 0.5)
            assert (at is None) == ((column, row) in places)
    for other in others:
        full = blocks(figure)[f"{other.dataset}/{other.tokens}"]
        assert not [patch for patch in full.patches if patch.get_hatch()]
    words = [text.get_text() for text in texts(figure)]
    assert words.count("no CLS token: Beta B/16") == 1
    assert not [word for word in words if "*" in word]
    assert "not computed" in words


def test_rows_have_layer_ticks_where_any_block_has_values() -> None:
    def ticks(given: list[Similarity], name: str) -> tuple[list[str], list[str]]:
        ax = blocks(all_pairs(given, MODELS, {"b"}))[name]
        found = [(text, *text.get_position()) for text in ax.texts if text.get_text().isdecimal()]
        below = [text.get_text() for text, _, y in sorted(found, key=lambda f: f[1]) if y < 0]
        left = [text.get_text() for text, x, _ in sorted(found, key=lambda f: f[2]) if x < 0]
        return below, left

    without = ["0", "2", "0", "3"]
    assert ticks([without_b()], "digits/cls") == (without, without)
    both = [without_b(), similarity(tokens="spatial")]
    assert ticks(both, "digits/cls") == (without, ["0", "2", "0", "1", "0", "3"])
    assert ticks(both, "digits/spatial") == (["0", "2", "0", "1", "0", "3"], [])
    # Another dataset's row says nothing of this one.
    other = [without_b(), similarity("photos")]
    assert ticks(other, "digits/cls")[1] == without


@pytest.mark.parametrize("draw", [all_pairs, last_layer])
def test_stand_ins_are_marked_and_explained(draw: Callable[..., Figure]) -> None:
    given = [similarity(stand_ins=frozenset("b")), similarity(tokens="spatial")]
    words = [text.get_text() for text in texts(draw(given, MODELS))]
    # One row's label at the left, and one below each of two blocks.
    assert words.count("Beta B/16*") == 3
    assert words.count("Beta B/16") == 0
    assert words.count("Alpha S/16") == 3
    assert words.count("* no CLS token: mean of spatial tokens in its place") == 1


def test_a_long_remark_is_broken_to_the_figures_width() -> None:
    models = [Model(f"m{i}", f"A model of some length, {i}", "dino") for i in range(9)]
    one = Similarity("d", "cls", "biased", 10, {"m0": (0,)}, {("m0", "m0"): np.ones((1, 1))})
    figure = last_layer([one], models, {model.id for model in models[1:]})
    lines = [text for text in figure.texts if text.get_position()[1] < 0.5]
    lines.sort(key=lambda line: -line.get_position()[1])
    assert len(lines) > 1
    whole = " ".join(line.get_text() for line in lines)
    assert whole == "no CLS token: " + ", ".join(model.label for model in models[1:])
    assert_nothing_is_cut_and_no_texts_overlap(figure)


@pytest.mark.parametrize("draw", [all_pairs, last_layer])
@pytest.mark.parametrize("kinds", [["cls"], ["cls", "spatial", "all"]])
def test_figures_of_few_models_are_as_wide_as_a_page(
    draw: Callable[..., Figure], kinds: list[str]
) -> None:
    given, models = many(4, "Some model")
    one = given[0]
    figure = draw([replace(one, tokens=kind) for kind in kinds], models)
    assert figure.get_figwidth() < 1.05 * style.PAGE_WIDTH
    assert_nothing_is_cut_and_no_texts_overlap(figure)


def many(count: int, label: str) -> tuple[list[Similarity], list[Model]]:
    names = list(style.FAMILY_COLOURS)
    models = [Model(f"m{i:02}", f"{label} {i}", names[i % len(names)]) for i in range(count)]
    layers = {one.id: tuple(range((12, 24, 32)[i % 3])) for i, one in enumerate(models)}
    values = {
        (a, b): np.full((len(layers[a]), len(layers[b])), 0.5)
        for a in layers
        for b in layers
        if a <= b
    }
    kinds = ("cls", "mean", "spatial")
    given = [
        Similarity("a-dataset-of-photos", k, "debiased", 50_000, layers, values) for k in kinds
    ]
    return given, models


@pytest.mark.parametrize(
    ("count", "label"),
    [(1, "M"), (2, "a model"), (7, "DINO ViT-B/16"), (26, "DINO"), (3, "vit_base_patch16." * 3)],
)
@pytest.mark.parametrize("without_cls", ["none", "leave_out", "mean"])
@pytest.mark.parametrize("draw", [all_pairs, last_layer])
def test_nothing_is_cut_and_no_texts_overlap(
    draw: Callable[..., Figure], without_cls: str, count: int, label: str
) -> None:
    given, models = many(count, label)
    # Every second model has no CLS token: the first block is of CLS tokens.
    ids = frozenset(model.id for model in models[::2])
    if without_cls == "mean":
        given[0] = replace(given[0], stand_ins=ids)
    figure = draw(given, models, ids if without_cls == "leave_out" else ())
    assert_nothing_is_cut_and_no_texts_overlap(figure)


def test_names_of_tokens_do_not_overlap_above_small_blocks() -> None:
    given = [
        Similarity("d", kind, "biased", 9, {"a": (0,)}, {("a", "a"): np.ones((1, 1))})
        for kind in ("mean", "spatial")
    ]
    figure = last_layer(given, MODELS[:1])
    assert_nothing_is_cut_and_no_texts_overlap(figure)


def test_remarks_fit_under_the_smallest_figures() -> None:
    for label in ("M", "vit_base_patch16." * 3):
        models = [Model("a", label, "dino")]
        own = Similarity("d", "cls", "biased", 9, {"a": (0,)}, {("a", "a"): np.ones((1, 1))})
        for given, left_out in (
            (replace(own, stand_ins=frozenset("a")), ()),
            (replace(own, tokens="all"), "a"),
        ):
            assert_nothing_is_cut_and_no_texts_overlap(last_layer([given], models, left_out))


Tables = dict[tuple[str, str, str, str], list[CkaRow]]


def drawn_from(
    tables: Tables, folder: Path, out: Path, models: Sequence[Model], estimator: str = "debiased"
) -> None:
    """Write tables by dataset, tokens and pair, empty ones of the other pairs, and draw them."""
    ids = [model.id for model in models]
    datasets, kinds = (list(dict.fromkeys(key[at] for key in tables)) for at in (0, 1))
    for dataset, tokens in itertools.product(datasets, kinds):
        for a, b in itertools.combinations_with_replacement(ids, 2):
            rows = tables.get((dataset, tokens, a, b), [])
            write_table(folder / dataset / tokens / f"{a}--{b}.csv", CkaRow, rows)
    figures_job.draw(
        folder, datasets, models, out, CkaSettings(tokens=kinds, estimators=[estimator])
    )


def rows_of(a: str, b: str, tokens: str = "cls") -> list[CkaRow]:
    cells = np.ndenumerate(similarity().values[a, b])
    return [row(a, i, b, j, float(value), tokens=tokens) for (i, j), value in cells]


def test_files_are_written_and_always_the_same(tmp_path: Path) -> None:
    tables = {
        (dataset, tokens, a, b): rows_of(a, b, tokens)
        for dataset in ("digits", "photos")
        for tokens in ("cls", "all")
        for a, b in similarity().values
    }
    state = dict(style.mpl.rcParams)
    written = []
    for out in (tmp_path / "one", tmp_path / "two"):
        drawn_from(tables, tmp_path, out, MODELS)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert set(written[0]) == {f"{n}.{k}" for n in NAMES for k in ("png", "pdf", "csv")}
    assert written[0] == written[1]
    assert style.mpl.rcParams == state
    for name in NAMES:
        with Image.open(tmp_path / "one" / f"{name}.png") as image:
            assert image.info["dpi"][0] == pytest.approx(style.DPI, abs=0.1)
        pdf = written[0][f"{name}.pdf"]
        assert pdf.startswith(b"%PDF")
        assert b"/FontType 42" in pdf or b"/Type0" in pdf
        assert b"CreationDate" not in pdf


def test_of_several_estimators_one_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row("a", 0, "a", 0, 0.5, estimator=name) for name in ("paper", "biased")]
    tables = {("d", "cls", "a", "a"): rows}
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, _: figures.append(figure))
    drawn_from(tables, tmp_path, tmp_path, [Model("a", "A", "dino")], "biased")
    assert "biased estimator" in " ".join(text.get_text() for text in texts(figures[1]))
    with pytest.raises(AnalysisError, match="'debiased', only paper, biased"):
        drawn_from(tables, tmp_path, tmp_path, [Model("a", "A", "dino")])


def row(a: str, i: int, b: str, j: int, value: float = 0.5, **change: object) -> CkaRow:
    tokens = change.get("tokens", "cls")
    plain = CkaRow(a, i, b, j, "debiased", tokens, tokens, tokens, 12, value)
    return plain._replace(**change)


def drawn_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[tuple[str, str, str], list[CkaRow]]
) -> set[str]:
    """Draw tables, and return what stands in both figures."""
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, _: figures.append(figure))
    models = [Model(name, f"Label {name}", "dino") for name in "ab"]
    tables = {("d", *key): rows for key, rows in given.items()}
    drawn_from(tables, tmp_path, tmp_path / "out", models)
    every, last = ({text.get_text() for text in texts(figure)} for figure in figures)
    return every & last


def test_a_table_without_rows_tells_who_has_no_cls_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {("cls", "a", "a"): [row("a", 0, "a", 0)], ("cls", "a", "b"): [], ("cls", "b", "b"): []}
    words = drawn_words(tmp_path, monkeypatch, given)
    assert {"CLS token", "no CLS token: Label b", "not computed"} <= words
    # Where it is other tokens that lack rows, that is not the reason.
    given["cls", "b", "b"] = [row("b", 0, "b", 0)]
    words = drawn_words(tmp_path, monkeypatch, {**given, ("spatial", "a", "a"): []})
    assert not [word for word in words if "no CLS token" in word]


def test_without_any_cls_token_other_tokens_are_drawn_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ("a", "a"), ("a", "b"), ("b", "b")
    nothing = {("cls", *pair): [] for pair in pairs}
    spatial = {("spatial", a, b): [row(a, 0, b, 0, tokens="spatial")] for a, b in pairs}
    words = drawn_words(tmp_path, monkeypatch, {**nothing, **spatial})
    assert {"spatial tokens", "no CLS token: Label a, Label b"} <= words
    assert "CLS token" not in words
    message = r"no CLS token in a, b; .*without_cls to mean"
    with pytest.raises(AnalysisError, match=message) as caught:
        drawn_words(tmp_path, monkeypatch, nothing)
    assert "\n" not in str(caught.value)


def test_tables_tell_what_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        ("cls", "a", "a"): [row("a", 0, "a", 0)],
        ("cls", "a", "b"): [row("a", 0, "b", 0, made_from_b="mean")],
        ("cls", "b", "b"): [row("b", 0, "b", 0, made_from_a="mean", made_from_b="mean")],
    }
    words = drawn_words(tmp_path, monkeypatch, given)
    assert {"Label a", "Label b*"} <= words
    assert "* no CLS token: mean of spatial tokens in its place" in words


def drawn_cells(figure: Figure, name: str) -> dict[tuple[str, str], np.ndarray]:
    """Values of every image in a block, by the models at its place."""
    found = {}
    for image in blocks(figure)[name].get_images():
        left, _, bottom, _ = image.get_extent()
        found[MODELS[int(bottom)].id, MODELS[int(left)].id] = np.asarray(image.get_array())
    return found


def test_the_numbers_beside_a_figure_are_those_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {("digits", "cls", a, b): rows_of(a, b) for a, b in similarity().values}
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, _: figures.append(figure))
    drawn_from(tables, tmp_path, tmp_path, MODELS)
    every = read_table(tmp_path / "all.csv", DrawnCka, "", "")
    drawn = drawn_cells(figures[0], "digits/cls")
    assert len(every) == 3 * 3 + 3 * 2 + 3 * 4 + 2 * 2 + 2 * 4 + 4 * 4
    for one in every:
        assert one[:4] == ("digits", "cls", "debiased", 12)
        assert drawn[one.model_a, one.model_b][one.layer_a, one.layer_b] == one.cka
    last = read_table(tmp_path / "last_layer.csv", DrawnCka, "", "")
    (image,) = blocks(figures[1])["digits/cls"].get_images()
    assert len(last) == 6
    for one in last:
        place = "abc".index(one.model_a), "abc".index(one.model_b)
        assert image.get_array()[place] == one.cka
        assert (one.layer_a, one.layer_b) == (DEPTHS[one.model_a] - 1, DEPTHS[one.model_b] - 1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_pair_in_large(turned: bool) -> None:
    a, b = (MODELS[2], MODELS[0]) if turned else (MODELS[0], MODELS[2])
    figure = pair(similarity(), a, b)
    ax = blocks(figure)[f"{a.id}/{b.id}"]
    (image,) = ax.get_images()
    values = np.asarray(image.get_array())
    for (i, j), value in np.ndenumerate(values):
        assert value == cell(a.id, i, b.id, j)
    assert values.shape == (DEPTHS[a.id], DEPTHS[b.id])
    assert image.origin == "lower"
    numbers = [str(i) for i in range(4)]
    assert [t.get_text() for t in ax.get_yticklabels()] == numbers[: DEPTHS[a.id]]
    assert [t.get_text() for t in ax.get_xticklabels()] == numbers[: DEPTHS[b.id]]
    written = {t.get_position(): t.get_text() for t in ax.texts if "." in t.get_text()}
    assert written == {(j, i): f"{v:.2f}" for (i, j), v in np.ndenumerate(values)}
    names = {t.get_text(): t for t in ax.texts}
    assert names[a.label].get_rotation() == 90
    assert names[b.label].get_rotation() == 0
    assert to_hex(names[b.label].get_color()) == style.family_colour(b.family).lower()
    assert any("digits, 1,234 images" in t.get_text() for t in texts(figure))
    assert_nothing_is_cut_and_no_texts_overlap(figure)


@pytest.mark.parametrize(("depths", "label"), [((1, 1), "M"), ((24, 12), "DINO"), ((40, 48), "M")])
@pytest.mark.parametrize("long", [False, True])
def test_pairs_of_any_depth_are_legible(depths: tuple[int, int], label: str, long: bool) -> None:
    a, b = (Model(i, label * (12 if long else 1) + i, "dino") for i in "ab")
    layers = {"a": tuple(range(depths[0])), "b": tuple(range(depths[1]))}
    values = {("a", "b"): np.full(depths, 0.5)}
    values["a", "b"][0, 0] = np.nan
    one = Similarity("photos", "cls", "debiased", 9, layers, values, frozenset("b"))
    figure = pair(one, a, b)
    words = [text.get_text() for text in texts(figure)]
    assert f"{b.label}*" in words
    assert "* no CLS token: mean of spatial tokens in its place" in " ".join(words)
    assert "grey: no CKA (nan)" in words
    assert ("0.50" in words) == (depths == (24, 12))
    assert_nothing_is_cut_and_no_texts_overlap(figure)


def test_a_pair_is_drawn_from_its_table(tmp_path: Path) -> None:
    a, b = MODELS[:2]
    table, out = tmp_path / "digits/cls/a--b.csv", tmp_path / "pairs/a--b.png"
    rows = [row("a", i, "b", j, cell("a", i, "b", j)) for i in range(3) for j in range(2)]
    rows += [r._replace(estimator="biased", cka=0.5) for r in rows]
    write_table(table, CkaRow, rows)
    draw_pair(table, out, CkaSettings(estimators=["biased"]), models=(b, a))
    assert out.stat().st_size > 5000
    assert out.with_suffix(".pdf").stat().st_size > 3000
    beside = read_table(out.with_suffix(".csv"), DrawnCka, "", "")
    assert [one.cka for one in beside] == [0.5] * 6
    draw_pair(table, out, CkaSettings(), models=(a, b))
    beside = read_table(out.with_suffix(".csv"), DrawnCka, "", "")
    assert [one.cka for one in beside] == [r.cka for r in rows[:6]]
    assert {one.dataset for one in beside} == {"digits"}


def test_a_pair_that_is_not_there(tmp_path: Path) -> None:
    table, out = tmp_path / "a--b.csv", tmp_path / "a--b.png"
    settings = CkaSettings()
    write_table(table, CkaRow, [])
    with pytest.raises(AnalysisError, match=r"no values of one token kind.*may lack the tokens"):
        draw_pair(table, out, settings, models=MODELS[:2])
    write_table(table, CkaRow, [row("a", 0, "b", 0)])
    with pytest.raises(AnalysisError, match="no CKA values of a and c, only of a, b"):
        draw_pair(table, out, settings, models=(MODELS[0], MODELS[2]))
    with pytest.raises(AnalysisError, match="'paper', only debiased"):
        draw_pair(table, out, CkaSettings(estimators=["paper"]), models=MODELS[:2])
    with pytest.raises(ConfigError, match="takes the two models of the pair, found 3"):
        draw_pair(table, out, settings, models=MODELS)
    assert not out.exists()


def test_rows_become_panels() -> None:
    rows = [row("a", i, "b", j, i + j / 10) for j in (9, 4) for i in (7, 0, 2)]
    rows += [row("a", 0, "a", 0, tokens="all", n_images=5)]
    found = similarities("digits", rows)
    assert [(one.tokens, one.n_images) for one in found] == [("cls", 12), ("all", 5)]
    assert found[0].layers == {"a": (0, 2, 7), "b": (4, 9)}
    expected = [[0.4, 0.9], [2.4, 2.9], [7.4, 7.9]]
    np.testing.assert_array_equal(found[0].panel("a", "b"), expected)
    np.testing.assert_array_equal(found[0].panel("b", "a"), np.transpose(expected))
    assert found[0].panel("a", "a") is None
    assert found[0].stand_ins == frozenset()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", 0, "b", 0), row("a", 0, "b", 0)], "2 values for 1 pairs of layers"),
        ([row("a", 0, "b", 0), row("a", 1, "b", 1)], "2 values for 4 pairs of layers"),
        ([row("a", 0, "b", 0), row("a", 0, "a", 0, n_images=9)], "mix numbers of images"),
        ([row("a", 0, "b", 0), row("a", 0, "a", 0, estimator="paper")], "mix estimators"),
        (
            [row("a", 0, "b", 0, made_from_b="mean"), row("b", 0, "b", 0)],
            r"mix what b is made from \(cls, mean\): compute all of that model again",
        ),
    ],
)
def test_rows_that_do_not_fit_fail(rows: list[CkaRow], message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        similarities("digits", rows)


def test_what_cannot_be_drawn_fails() -> None:
    for draw in (all_pairs, last_layer):
        with pytest.raises(AnalysisError, match="no CKA values to draw"):
            draw([], MODELS)
        with pytest.raises(AnalysisError, match="several estimators"):
            draw([similarity(), similarity("photos", estimator="biased")], MODELS)
        with pytest.raises(AnalysisError, match="no CKA values of d:"):
            draw([similarity()], [*MODELS, Model("d", "D", "dino")])
        with pytest.raises(AnalysisError, match="no CKA values of d:"):
            draw([similarity()], [*MODELS, Model("d", "D", "dino")], {"b"})


def test_pyplot_is_left_alone() -> None:
    code = "import sys, vitfeat.analyses.cka.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
