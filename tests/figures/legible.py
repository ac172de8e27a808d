"""Whether the texts of a figure with slanted labels, whose boxes overlap, can be read."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.figures.canvas import assert_apart, assert_inside, laid_out


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def assert_nothing_is_cut_and_no_texts_overlap(figure: Figure) -> None:
    renderer = laid_out(figure)
    boxes = [(text, text.get_window_extent(renderer)) for text in texts(figure)]
    assert_inside(figure, boxes)
    # The boxes of slanted texts overlap where the texts do not.
    assert_apart([(text, box) for text, box in boxes if text.get_rotation() in (0, 90)])
