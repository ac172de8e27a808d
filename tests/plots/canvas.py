"""What a drawn figure really shows: its texts, and whether they can be read."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text


def shown_texts(figure: Figure) -> list[Text]:
    """All texts that are drawn: tick labels beyond the limits are not."""
    hidden = set()
    for ax in figure.axes:
        for places, labels, (low, high) in (
            (ax.get_xticks(), ax.get_xticklabels(), sorted(ax.get_xlim())),
            (ax.get_yticks(), ax.get_yticklabels(), sorted(ax.get_ylim())),
        ):
            tiny = 1e-6 * (high - low)
            for place, label in zip(places, labels, strict=False):
                if not low - tiny <= place <= high + tiny:
                    hidden.add(label)
    found = figure.findobj(Text)
    return [t for t in found if t.get_text() and t.get_visible() and t not in hidden]


def words(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in shown_texts(figure))


def assert_readable(figure: Figure) -> None:
    """Nothing is cut at the edges, and no text overlaps another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = canvas.get_width_height()
    boxes = []
    for text in shown_texts(figure):
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
        boxes.append((text, box.padded(-1)))
    for index, (one, box) in enumerate(boxes):
        for other, another in boxes[index + 1 :]:
            assert not box.overlaps(another), (one, other)
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        assert box.x0 >= -1
        assert box.x1 <= width + 1
        assert box.y0 >= -1


def axes_named(figure: Figure, start: str) -> Axes:
    """The one axes whose label begins so."""
    (found,) = (ax for ax in figure.axes if str(ax.get_label()).startswith(start))
    return found


def lines(ax: Axes) -> dict[str, Line2D]:
    """The lines of models, by id."""
    return {str(line.get_label()): line for line in ax.lines if "_" not in str(line.get_label())}
