from __future__ import annotations

import pytest

from tests.figures.canvas import assert_readable, laid_out, shown_texts, words
from vitfeat.figures import style
from vitfeat.figures.sheet import Sheet, Space


def drawn(high: float) -> Sheet:
    with style.settings():
        sheet = Sheet([Space(0.2, 1, 0.3)], [Space(0.45, 1.4, 0.2)], title="T", note="n")
        ax = sheet.axes(0)
        ax.plot([0, 1, 2], [0, high, 0])
        ax.set_ylim(0, high)
        ax.annotate("A name", (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points")
    return sheet


@pytest.mark.parametrize("high", [8e-9, 7.8e-5, 0.004, 0.5, 1.0, 50, 3e4, 2.5e7])
def test_numbers_of_any_size_stand_by_themselves(high: float) -> None:
    """No factor such as 1e-5 stands above the axis, where the name is."""
    figure = drawn(high).figure
    assert_readable(figure)
    (ax,) = figure.axes
    laid_out(figure)
    assert not ax.yaxis.get_offset_text().get_text()
    places, labels = ax.get_yticks(), [label.get_text() for label in ax.get_yticklabels()]
    for place, label in zip(places, labels, strict=True):
        assert float(label.replace("\u2212", "-")) == pytest.approx(place, rel=1e-3, abs=1e-12)
        assert len(label) <= 7


def test_the_name_is_not_lost_in_small_numbers() -> None:
    assert "A name" in words(drawn(7.8e-5).figure)
    assert {t.get_text() for t in shown_texts(drawn(7.8e-5).figure)} >= {"A name", "T", "n"}
