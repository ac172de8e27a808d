"""How wide figures are, and as which files they are written."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable
from tests.figures.drawings import figure_of
from tests.figures.made_tables import DEMO, PAPER, Made, attention_rows
from vitfeat.analyses.attention.across import CURVES
from vitfeat.figures import style


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "FORMATS", style.FORMATS)
    monkeypatch.setattr(style, "PAGE_WIDTH", style.PAGE_WIDTH)


def _drawn() -> Figure:
    with style.settings():
        figure = Figure(figsize=(1, 1))
        figure.subplots().set_title("DINO")
    return figure


@pytest.mark.parametrize(
    ("formats", "written"),
    [
        (["png", "pdf"], {"a.png", "a.pdf"}),
        (["svg"], {"a.png", "a.svg"}),
        (["png"], {"a.png"}),
        (["svg", "pdf"], {"a.png", "a.pdf", "a.svg"}),
    ],
)
def test_a_figure_is_written_as_what_was_chosen_and_nothing_old_stays(
    formats: list[str], written: set[str], tmp_path: Path
) -> None:
    for name in ("a.pdf", "a.svg"):
        (tmp_path / name).write_text("of yesterday")
    style.choose(format=formats, columns=2)
    style.save(_drawn(), tmp_path / "a.png")
    assert {path.name for path in tmp_path.iterdir()} == written
    assert all(b"yesterday" not in path.read_bytes() for path in tmp_path.iterdir())


def test_an_svg_is_the_same_bytes_again_and_says_no_date(tmp_path: Path) -> None:
    style.choose(format=["svg"], columns=2)
    for name in ("a.png", "b.png"):
        style.save(_drawn(), tmp_path / name)
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"date" not in svg.lower()


@pytest.mark.parametrize("made", [DEMO, PAPER], ids=["seven", "paper"])
@pytest.mark.parametrize("name", ["families", "breakout"])
@pytest.mark.parametrize("columns", [1, 2])
def test_small_panels_fill_the_width_and_can_be_read(
    columns: int, name: str, made: list[Made]
) -> None:
    style.choose(format=["png"], columns=columns)
    figure = figure_of(CURVES, name, made, attention_rows(made, "digits"))
    assert 0.93 * style.WIDTHS[columns] < figure.get_figwidth() < 1.06 * style.WIDTHS[columns]
    assert_readable(figure)


def test_panels_by_layer_stand_below_one_another_in_one_column() -> None:
    style.choose(format=["png"], columns=1)
    figure = figure_of(CURVES, "by_layer", DEMO, attention_rows(DEMO, "digits"))
    assert figure.get_figwidth() <= style.WIDTHS[1]
    assert len({round(ax.get_position().x0, 6) for ax in figure.axes}) == 1
    assert_readable(figure)
