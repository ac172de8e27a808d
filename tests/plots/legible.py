"""Whether the texts of a figure with slanted labels, whose boxes overlap, can be read."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def assert_nothing_is_cut_and_no_texts_overlap(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    boxes = []
    for text in texts(figure):
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
        # The boxes of slanted texts overlap where the texts do not.
        if text.get_rotation() in (0, 90):
            boxes.append((text.get_text(), box.padded(-1)))
    for index, (one, box) in enumerate(boxes):
        for other, another in boxes[index + 1 :]:
            assert not box.overlaps(another), (one, other)
