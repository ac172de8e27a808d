"""Names in any script, with what is installed and without."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from tests.figures.canvas import assert_readable, words
from tests.figures.drawings import figure_of
from tests.figures.made_tables import DEMO, Made, attention_rows, clustering_rows
from vitfeat.analyses.attention.across import CURVES as ATTENTION
from vitfeat.analyses.clustering.across import SCORING as CLUSTERING
from vitfeat.cli import main
from vitfeat.figures import fonts, style
from vitfeat.figures.fonts import families, make_readable, readable, text_width
from vitfeat.figures.models import LONGEST, Model, models_from
from vitfeat.figures.sheet import Sheet, Space
from vitfeat.tables import write_table

CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"
FORMULAS = "$x_1^2$ a_b^c \\alpha {x} 100% $"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """What is installed is looked up anew, and said anew."""
    cached = (fonts._font_of, fonts._say)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the fonts that come with matplotlib alone."""
    own = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)


@pytest.fixture
def cat_font(bare: None, tmp_path: Path) -> Path:
    """A font with one letter, a black square, installed."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord(CAT): "cat"})
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Cat Only", "styleName": "Regular", "psName": "CatOnly"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "cat.ttf"
    builder.save(path)
    fontManager.addfont(path)
    return path


def written(text: str, path: Path) -> np.ndarray:
    """A figure with a text and a tick label, as it is written; no letter may be missing."""
    with style.settings():
        figure = Figure(figsize=(3, 2))
        ax = figure.subplots()
        ax.set_title(text)
        ax.set_yticks([0.5], [text])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            style.save(figure, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.usefixtures("bare")
def test_letters_that_no_font_has_are_their_numbers_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert readable(f"{CAT}.jpg") == "\\u732b.jpg"
    assert readable(readable(CAT)) == readable(CAT)
    assert text_width(CAT, 8) == text_width("\\u732b", 8)
    with caplog.at_level(logging.WARNING, "vitfeat"):
        strange = written(f"{CAT}.jpg", tmp_path / "a.png")
        written(f"{CAT}.jpg", tmp_path / "b.png")
    np.testing.assert_array_equal(strange, written("\\u732b.jpg", tmp_path / "c.png"))
    assert [record.getMessage() for record in caplog.records] == [
        f"no installed font has {CAT} (\\u732b): figures show the number; install a font that has "
        "it, such as Noto Sans CJK"
    ]


def test_letters_are_taken_from_an_installed_font_that_has_them(
    cat_font: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert cat_font.is_file()
    assert readable(f"{CAT}.jpg") == f"{CAT}.jpg"
    assert families(f"{CAT}.jpg") == ("DejaVu Sans", "Cat Only")
    # The square is as wide as the font is high.
    assert text_width(CAT * 3, 10) == pytest.approx(30 / 72, rel=0.02)
    drawn = written(CAT * 3, tmp_path / "cat.png")
    side = 12 / 72 * style.DPI  # of the title, which is 12 points
    assert (drawn < 50).sum() > 3 * side**2
    assert b"CatOnly" in (tmp_path / "cat.pdf").read_bytes().replace(b" ", b"")
    assert not caplog.records


@pytest.mark.usefixtures("bare")
def test_a_letter_that_one_face_of_a_font_lacks_is_not_taken_from_it(tmp_path: Path) -> None:
    """The mathematical font that comes with matplotlib has this letter in one face alone."""
    no = "\N{HIRAGANA LETTER NO}"
    assert readable(no) == "\\u306e"
    written(no, tmp_path / "a.png")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    "text", ["crème brûlée", "кот", "γάτα", "× ↓ − … ≤ ½ † ⚠", "قطة", "חתול", "🐱"]
)
def test_letters_that_come_with_matplotlib_are_drawn(text: str, tmp_path: Path) -> None:
    assert readable(text) == text
    assert families(text) == ("DejaVu Sans",)
    written(text, tmp_path / "a.png")


def test_accents_that_stand_alone_join_their_letters() -> None:
    assert readable("cafe\N{COMBINING ACUTE ACCENT}") == "café"


def test_arabic_letters_are_joined() -> None:
    """A word is narrower than its letters one by one."""
    word = "قطة"
    assert text_width(word, 10) < 0.95 * sum(text_width(letter, 10) for letter in word)


def test_names_are_no_formulas(tmp_path: Path) -> None:
    with style.settings():
        text = Figure().text(0, 0, FORMULAS)
        assert not text.get_parse_math()
        assert text_width(FORMULAS, 10) > text_width("x12 abc alpha x 100%", 10)
    written(FORMULAS, tmp_path / "a.png")


NAMES = {
    "formulas": FORMULAS,
    "chinese": CAT * 6,
    "arabic": "قطة كبيرة",
    "long": "a-name-without-any-space-" * 4,
}

Draw = Callable[[Sequence[Made]], Figure]


def lines_of(made: Sequence[Made]) -> Figure:
    return figure_of(CLUSTERING, "by_layer", made, clustering_rows(made))


def averages_of(made: Sequence[Made]) -> Figure:
    return figure_of(ATTENTION, "averages", made, attention_rows(made))


def best_of(made: Sequence[Made]) -> Figure:
    return figure_of(CLUSTERING, "best", made, clustering_rows(made))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("draw", [lines_of, averages_of, best_of])
@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind_fit_in_figures(draw: Draw, name: str) -> None:
    labels = [{"id": m.model.id, "label": f"{NAMES[name]} {at}", "family": m.model.family}
              for at, m in enumerate(DEMO[:4])]  # fmt: skip
    made = [Made(model) for model in models_from(labels)]
    figure = draw(made)
    make_readable(figure)
    assert_readable(figure)
    assert figure.get_figwidth() < 1.6 * style.PAGE_WIDTH
    if name == "formulas":
        assert "$x_1^2$" in words(figure)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", NAMES)
def test_a_long_title_makes_a_figure_no_wider_than_a_page(name: str) -> None:
    with style.settings():
        title = f"Attention maps: {NAMES[name]} {NAMES[name]}"
        sheet = Sheet([Space(0.1, 1, 0.1)], [Space(0.1, 2, 0.1)], title=title, note="n")
        sheet.axes(0)
    make_readable(sheet.figure)
    assert_readable(sheet.figure)
    assert sheet.width <= style.PAGE_WIDTH


def test_long_names_lose_their_middle_unless_they_would_be_alike() -> None:
    def labels(*given: str) -> list[str]:
        found = models_from([{"id": g, "label": g, "family": "x"} for g in given])
        return [model.label for model in found]

    long = ["vit-small-" + "x" * 80 + "-run-1", "vit-small-" + "x" * 80 + "-run-2"]
    first, second = labels(*long)
    assert first != second
    assert len(first) <= LONGEST
    assert first.startswith("vit-small-")
    assert first.endswith("-run-1")
    assert (
        labels("a" * 50 + "1" + "b" * 50, "a" * 50 + "2" + "b" * 50)[0] == "a" * 50 + "1" + "b" * 50
    )
    assert labels("DINO S/16") == ["DINO S/16"]


@pytest.mark.usefixtures("bare")
def test_a_figure_job_writes_the_line_in_its_log(tmp_path: Path) -> None:
    """Through the command, as the workflow runs it."""
    made = [Made(Model("a", CAT, "dino", "S/16@224"))]
    rows = clustering_rows(made)
    folder = tmp_path / "clustering"
    from vitfeat.analyses.rows import ScoreRow

    write_table(folder / "digits" / "a.csv", ScoreRow, rows)
    given = json.dumps([{"id": "a", "label": CAT, "family": "dino", "size": "S/16@224"}])
    command = ["draw", "clustering", str(folder), "--datasets", "digits", "--models", given]
    log = tmp_path / "log"
    assert main([*command, "--out", str(tmp_path / "out"), "--log", str(log)]) == 0
    assert log.read_text("utf-8").count("no installed font has") == 1
