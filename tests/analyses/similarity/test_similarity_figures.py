"""Figures of similarity: what they draw, what stands beside them, and whether they can be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, axes_named, lines, shown_texts, words
from tests.figures.legible import assert_nothing_is_cut_and_no_texts_overlap
from vitfeat.analyses.rows import SimilarityRow
from vitfeat.analyses.similarity.compared import Compared, DrawnSimilarity, compared
from vitfeat.analyses.similarity.dendrograms import DrawnMerge, dendrograms
from vitfeat.analyses.similarity.figures_job import draw
from vitfeat.analyses.similarity.intervals import groups, intervals
from vitfeat.analyses.similarity.measure_matrices import measure_matrices
from vitfeat.analyses.similarity.measures import NAMES
from vitfeat.analyses.similarity.model_maps import DrawnPlace, model_maps
from vitfeat.analyses.similarity.model_space import chords, classical_mds, dendrogram
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.models import Model
from vitfeat.tables import read_table, write_table

MODELS = [
    Model("a", "Alpha S/16", "dino", "S/16@224"),
    Model("b", "Beta B/16", "clip", "B/16@224"),
    Model("c", "Gamma L/14", "ours", "L/14@224"),
    Model("d", "Delta B/16", "dino", "B/16@224"),
]
SETTINGS = {"mutual_knn": 10.0, "svcca": 0.99}

Draw = Callable[..., Figure]


def row(a: str, b: str, measure: str = "cka", **change: object) -> SimilarityRow:
    """A value that tells its pair and measure."""
    rng = np.random.default_rng([NAMES.index(measure), *map(ord, min(a, b) + max(a, b))])
    value = 1.0 if a == b else float(rng.uniform(0.1, 0.9))
    has_interval = measure in ("cka", "rsa", "mutual_knn")
    low, high = (value - 0.03, value + 0.02) if has_interval and a != b else (value, value)
    if not has_interval:
        low = high = float("nan")
    plain = SimilarityRow(
        model_a=a,
        layer_a=11,
        model_b=b,
        layer_b=11,
        measure=measure,
        setting=SETTINGS.get(measure),
        tokens="cls",
        made_from_a="cls",
        made_from_b="cls",
        n_images=1234,
        value=value,
        low=low,
        high=high,
        confidence=0.95,
    )
    if "tokens" in change:
        change = {"made_from_a": change["tokens"], "made_from_b": change["tokens"]} | change
    return plain._replace(**change)


def rows(
    ids: Iterable[str], measures: Sequence[str] = ("cka",), **change: object
) -> list[SimilarityRow]:
    return [
        row(a, b, name, **change)
        for a, b in itertools.combinations_with_replacement(sorted(ids), 2)
        for name in measures
    ]


def blocks(
    models: Sequence[Model] = MODELS,
    measures: Sequence[str] = ("cka",),
    kinds: Sequence[str] = ("cls", "spatial"),
    datasets: Sequence[str] = ("digits",),
) -> list[Compared]:
    ids = [model.id for model in models]
    return [
        one
        for dataset in datasets
        for one in compared(dataset, [r for k in kinds for r in rows(ids, measures, tokens=k)])
    ]


def many(count: int) -> list[Model]:
    names = list(style.FAMILY_COLOURS)[:7]
    sizes = ["S/16@224", "B/16@224", "B/8@224", "L/16@384", "H/14@224"]
    return [
        Model(
            f"m{i:02}",
            f"{names[i % 7]} {sizes[i % 5].partition('@')[0]} v{i}",
            names[i % 7],
            sizes[i % 5],
        )
        for i in range(count)
    ]


def test_matrices_have_their_values_at_their_places() -> None:
    figure = measure_matrices(blocks(measures=NAMES, datasets=("digits", "photos")), MODELS)
    for dataset, tokens, name in itertools.product(("digits", "photos"), ("cls", "spatial"), NAMES):
        ax = axes_named(figure, f"{dataset}/{tokens}/{name}")
        (image,) = ax.get_images()
        for i, a in enumerate(MODELS):
            for j, b in enumerate(MODELS):
                assert image.get_array()[i, j] == row(a.id, b.id, name).value
        assert image.origin == "lower"
        written = {t.get_position(): t.get_text() for t in ax.texts if "." in t.get_text()}
        assert written[1.5, 0.5] == f"{row('a', 'b', name).value:.2f}"
    places = {str(ax.get_label()): ax.get_position() for ax in figure.axes}
    # Measures stand in their order, line by line.
    order = [places[f"digits/cls/{name}"] for name in NAMES]
    lines = [(-round(place.y0, 6), place.x0) for place in order]
    assert lines == sorted(lines)
    assert len({line for line, _ in lines}) == 2
    assert figure.get_figwidth() < 1.05 * style.PAGE_WIDTH
    down = [places[f"{d}/{t}/cka"].y0 for d in ("digits", "photos") for t in ("cls", "spatial")]
    assert down == sorted(down, reverse=True)
    said = words(figure)
    for text in (
        "CLS token; digits, 1,234 images",
        "Mutual 10-NN",
        "SVCCA, 99 % of variance",
        "mutual k-NN of unrelated features: 0.008 (digits), 0.008 (photos)",
    ):
        assert text in said


def test_no_value_and_no_pair_in_a_matrix() -> None:
    given = rows("abcd", ["svcca"])
    given = [r._replace(value=np.nan) if {r.model_a, r.model_b} == {"a", "b"} else r for r in given]
    given = [r for r in given if {r.model_a, r.model_b} != {"c", "d"}]
    figure = measure_matrices(compared("digits", given), MODELS)
    ax = axes_named(figure, "digits/cls/svcca")
    assert [t.get_text() for t in ax.texts].count("nan") == 2
    hatched = sorted((int(p.get_x()), int(p.get_y())) for p in ax.patches if p.get_hatch())
    assert hatched == [(2, 3), (3, 2)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-2:] == ["no value (nan)", "not computed"]


def test_dendrograms_merge_where_they_should() -> None:
    (one,) = blocks(kinds=["cls"])
    found = dendrogram(one.matrix(MODELS))
    ax = axes_named(dendrograms([one], MODELS), "digits/cls")
    (branches,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    heights = [segment[1][0] for segment in branches.get_segments()]
    assert heights == pytest.approx([merge.similarity for merge in found.merges])
    places = {text.get_text(): text.xy for text in ax.texts if text.get_text() in LABELS}
    for place, leaf in enumerate(found.leaves):
        assert places[MODELS[leaf].label] == (1, place)
        marker = lines(ax)[MODELS[leaf].id]
        assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (1, place)
        assert to_hex(marker.get_color()) == style.family_colour(MODELS[leaf].family).lower()
    # Each branch ends at a leaf or at the middle of what was merged before.
    for segment, merge in zip(branches.get_segments(), found.merges, strict=True):
        ends = {segment[0][1], segment[3][1]}
        for side in (merge.left, merge.right):
            if len(side) == 1:
                assert found.leaves.index(side[0]) in ends


LABELS = {model.label for model in MODELS}


def test_maps_have_models_at_their_places() -> None:
    drawn = blocks()
    figure = model_maps(drawn, MODELS)
    limits = set()
    for one in drawn:
        ax = axes_named(figure, f"digits/{one.tokens}")
        found = classical_mds(chords(one.matrix(MODELS)))
        for model, place in zip(MODELS, found.places, strict=True):
            point = lines(ax)[model.id]
            assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx(tuple(place))
        assert ax.get_xlabel() == f"axis 1: {100 * found.explained[0]:.0f} %"
        assert ax.get_ylabel() == f"axis 2: {100 * found.explained[1]:.0f} %"
        assert f"stress {found.stress:.2f}" in words(figure)
        for low, high in (ax.get_xlim(), ax.get_ylim()):
            limits.add(round(high - low, 9))
        box = ax.get_position()
        width, height = figure.get_size_inches()
        assert box.width * width == pytest.approx(box.height * height)
    # One scale in both directions and all panels, so that distances compare.
    assert len(limits) == 1


def test_intervals_are_sorted_and_at_their_values() -> None:
    (one,) = blocks(kinds=["cls"])
    figure = intervals([one], MODELS)
    ax = axes_named(figure, "digits/cls")
    (bars,) = (c for c in ax.collections if c.get_label() == "intervals")
    values = lines(ax)["values"].get_xdata()
    assert len(values) == 6
    assert list(values) == sorted(values, reverse=True)
    labels = [t for t in ax.texts if " – " in t.get_text()]
    names = {model.label: model.id for model in MODELS}
    for label, bar, value in zip(labels, bars.get_segments(), values, strict=True):
        a, b = (names[name] for name in label.get_text().split(" – "))
        expected = row(a, b)
        assert value == expected.value
        assert [x for x, _ in bar] == pytest.approx([expected.low, expected.high])
        assert {y for _, y in bar} == {label.get_position()[1]}
    assert "95 % confidence intervals over images" in words(figure)


def test_without_intervals_the_values_are_drawn() -> None:
    given = [r._replace(low=np.nan, high=np.nan) for r in rows("abcd")]
    figure = intervals(compared("digits", given), MODELS)
    assert "no intervals" in words(figure)
    assert len(lines(axes_named(figure, "digits/cls"))["values"].get_xdata()) == 6


def test_many_pairs_are_put_together_by_family() -> None:
    models = many(14)
    (one,) = blocks(models, kinds=["cls"])
    figure = intervals([one], models)
    ax = axes_named(figure, "digits/cls")
    values = list(lines(ax)["values"].get_xdata())
    assert len(values) == 14 * 13 // 2
    found = groups(one, models, by_family=True)
    assert len(found) == 7 * 6 // 2 + 7
    medians = [np.median([pair.row.value for pair in group.pairs]) for group in found]
    assert medians == sorted(medians, reverse=True)
    assert values == [pair.row.value for group in found for pair in group.pairs]
    for group in found:
        inner = [pair.row.value for pair in group.pairs]
        assert inner == sorted(inner, reverse=True)
        assert {frozenset((p.a.family, p.b.family)) for p in group.pairs} == {
            frozenset(group.families)
        }
    assert "all pairs of two families together" in words(figure)
    assert_readable(figure)


@pytest.mark.parametrize("draw", [dendrograms, model_maps, intervals])
@pytest.mark.parametrize("count", [1, 2, 7, 26])
def test_figures_of_cka_are_readable(draw: Draw, count: int) -> None:
    models = many(count)
    assert_readable(draw(blocks(models, datasets=("digits",)), models))


@pytest.mark.parametrize("draw", [dendrograms, model_maps, intervals])
def test_figures_of_several_datasets_and_long_names_are_readable(draw: Draw) -> None:
    models = [Model(m.id, m.label + " of a long name", m.family, m.size) for m in MODELS]
    figure = draw(blocks(models, datasets=("digits", "a-dataset-of-photos")), models)
    assert_readable(figure)
    places = {str(ax.get_label()): ax.get_position() for ax in figure.axes}
    assert places["digits/cls"].x1 < places["digits/spatial"].x0
    assert places["digits/cls"].y0 > places["a-dataset-of-photos/cls"].y1
    for dataset in ("digits", "a-dataset-of-photos"):
        assert f"{dataset}, 1,234 images" in words(figure)


@pytest.mark.parametrize("count", [1, 2, 7, 26])
def test_matrices_are_readable(count: int) -> None:
    models = many(count)
    figure = measure_matrices(blocks(models, NAMES, kinds=["cls"]), models, {"m00"})
    assert_nothing_is_cut_and_no_texts_overlap(figure)


@pytest.mark.parametrize("draw", [measure_matrices, dendrograms, model_maps, intervals])
def test_stand_ins_are_marked_and_absent_models_named(draw: Draw) -> None:
    given = [
        r._replace(
            made_from_a="mean" if r.model_a == "b" else "cls",
            made_from_b="mean" if r.model_b == "b" else "cls",
        )
        for r in rows("abc")
    ]
    figure = draw(compared("digits", given), MODELS, {"d"})
    said = words(figure)
    assert "Beta B/16*" in said
    assert "* no CLS token: mean of spatial tokens in its place" in said
    assert "no CLS token: Delta B/16" in said


@pytest.mark.parametrize("draw", [dendrograms, model_maps, intervals])
def test_models_without_values_are_left_out(draw: Draw) -> None:
    given = [
        r._replace(value=np.nan, low=np.nan, high=np.nan) if "b" in (r.model_a, r.model_b) else r
        for r in rows("abcd")
    ]
    figure = draw(compared("digits", given), MODELS)
    assert not [t for t in shown_texts(figure) if "Beta" in t.get_text()]
    assert [t for t in shown_texts(figure) if "Alpha" in t.get_text()]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (dendrograms, "fewer than two models"),
        (model_maps, "fewer than two models"),
        (intervals, "no p"),
    ],
)
def test_too_few_models_are_said(draw: Draw, said: str) -> None:
    figure = draw(blocks(MODELS[:1]), MODELS[:1])
    assert words(figure).count(said) == 2


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (
            "svcca",
            "SVCCA, 99 % of variance: no value (nan) where two layers together have that variance "
            "in more directions than 1,234 images can tell apart",
        ),
        ("rsa", "RSA: no value (nan) where features do not tell images apart"),
    ],
)
def test_the_matrices_say_why_there_are_no_values(measure: str, said: str) -> None:
    """A measure that is NaN for every pair, as SVCCA of few images."""
    given = [r._replace(value=np.nan) if r.measure == measure else r for r in rows("abcd", NAMES)]
    figure = measure_matrices(compared("digits", given), MODELS)
    assert said in words(figure)
    assert words(figure).count("no value (nan) where") == 1
    assert_nothing_is_cut_and_no_texts_overlap(figure)
    whole = measure_matrices(compared("digits", rows("abcd", NAMES)), MODELS)
    assert "no value" not in words(whole)


def test_maps_that_are_not_faithful_carry_a_warning() -> None:
    """Models that are all equally far from one another have no faithful map on a plane."""
    models = many(9)
    ids = [model.id for model in models]
    alike = [r._replace(value=1.0 if r.model_a == r.model_b else 0.1) for r in rows(ids)]
    lost = compared("digits", alike)
    # On a line from 0 to 1 everything is as drawn.
    place = {name: at / 8 for at, name in enumerate(ids)}
    straight = [
        r._replace(value=1 - (place[r.model_a] - place[r.model_b]) ** 2 / 2, tokens="spatial")
        for r in rows(ids, made_from_a="spatial", made_from_b="spatial")
    ]
    figure = model_maps([*lost, *compared("digits", straight)], models)
    said = words(figure)
    assert said.count("not faithful") == 1
    assert "stress above 0.2" in said
    assert "read the matrix of CKA instead (CLS token of digits)" in said
    assert_readable(figure)
    (warned,) = (t for t in axes_named(figure, "digits/cls").texts if "not faith" in t.get_text())
    assert warned.get_visible()
    assert "stress above" not in words(model_maps(compared("digits", straight), models))


def test_rows_become_last_layers() -> None:
    given = [
        row("a", "b", layer_a=i, layer_b=j, value=i + j / 10) for i in (0, 5, 2) for j in (7, 1)
    ]
    given += [row("a", "a", layer_a=i, layer_b=j, value=0.5) for i in (0, 5) for j in (5, 0)]
    given += rows("ab", ["rsa"], tokens="all", n_images=5)
    found = compared("digits", given)
    assert [(one.tokens, one.measure, one.n_images) for one in found] == [
        ("cls", "cka", 1234),
        ("all", "rsa", 5),
    ]
    assert found[0].value("a", "b") == found[0].value("b", "a") == 5.7
    assert found[0].value("b", "b") is None
    assert found[0].stand_ins == frozenset()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([row("a", "b"), row("a", "b")], "has 2 values for the last layers"),
        ([row("a", "b"), row("a", "a", layer_a=12, layer_b=12)], "0 values for the last layers"),
        ([row("a", "b"), row("a", "a", n_images=9)], r"mix n images \['1234', '9'\]"),
        (
            [row("a", "b", "mutual_knn"), row("a", "a", "mutual_knn", setting=5.0)],
            r"mix setting \['10.0', '5.0'\]",
        ),
        ([row("a", "b", made_from_b="mean"), row("b", "b")], r"mix what b is made from \(cls, me"),
    ],
)
def test_rows_that_do_not_fit_fail(given: list[SimilarityRow], message: str) -> None:
    with pytest.raises(AnalysisError, match=message) as caught:
        compared("digits", given)
    assert "\n" not in str(caught.value)


ASKED = SimilaritySettings(tokens=["cls"])


def write(folder: Path, given: dict[tuple[str, str, str], list[SimilarityRow]]) -> None:
    """Write tables of pairs on digits."""
    for (tokens, a, b), some in given.items():
        write_table(folder / "digits" / tokens / f"{a}--{b}.csv", SimilarityRow, some)


def pairs_of(ids: str, measures: Sequence[str]) -> dict[tuple[str, str, str], list[SimilarityRow]]:
    return {
        ("cls", a, b): [row(a, b, name) for name in measures]
        for a, b in itertools.combinations_with_replacement(ids, 2)
    }


def test_files_hold_what_is_drawn_and_are_always_the_same(tmp_path: Path) -> None:
    write(tmp_path, pairs_of("abcd", NAMES))
    written = []
    for out in (tmp_path / "one", tmp_path / "two"):
        draw(tmp_path, ["digits"], MODELS, out, ASKED)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    names = ("all", "trees", "maps", "intervals")
    assert set(written[0]) == {f"{n}.{k}" for n in names for k in ("png", "pdf", "csv")}
    assert written[0] == written[1]
    (one,) = blocks(kinds=["cls"])
    every = read_table(tmp_path / "one/all.csv", DrawnSimilarity, "", "")
    assert len(every) == 10 * len(NAMES)
    for cell in every:
        assert cell.value == row(cell.model_a, cell.model_b, cell.measure).value
    shown = read_table(tmp_path / "one/intervals.csv", DrawnSimilarity, "", "")
    drawn = lines(axes_named(intervals([one], MODELS), "digits/cls"))["values"].get_xdata()
    assert [r.value for r in shown] == list(drawn)
    merges = read_table(tmp_path / "one/trees.csv", DrawnMerge, "", "")
    found = dendrogram(one.matrix(MODELS))
    assert [m.cka for m in merges] == [m.similarity for m in found.merges]
    order = [MODELS[leaf].id for leaf in found.leaves]
    assert f"{merges[-1].members_a} {merges[-1].members_b}".split() == order
    places = read_table(tmp_path / "one/maps.csv", DrawnPlace, "", "")
    expected = classical_mds(chords(one.matrix(MODELS)))
    assert [(p.x, p.y) for p in places] == [tuple(place) for place in expected.places.tolist()]
    assert {p.stress for p in places} == {expected.stress}


def test_without_cka_there_are_matrices_alone(tmp_path: Path) -> None:
    write(tmp_path, pairs_of("ab", ["rsa"]))
    draw(tmp_path, ["digits"], MODELS[:2], tmp_path / "out", ASKED)
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"all"}


def test_models_without_cls_token(tmp_path: Path) -> None:
    given = pairs_of("abc", ["cka"])
    for pair in given:
        if "c" in pair:
            given[pair] = []
    write(tmp_path, given)
    draw(tmp_path, ["digits"], MODELS[:3], tmp_path / "out", ASKED)
    assert len(read_table(tmp_path / "out/all.csv", DrawnSimilarity, "", "")) == 3
    write(tmp_path, {pair: [] for pair in given})
    with pytest.raises(AnalysisError, match=r"no CLS token in a, b, c; ask for other tokens"):
        draw(tmp_path, ["digits"], MODELS[:3], tmp_path / "out", ASKED)


def test_nothing_to_draw() -> None:
    with pytest.raises(AnalysisError, match="no similarities to draw"):
        measure_matrices([], MODELS)
