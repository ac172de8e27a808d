"""What a drawn figure really shows: its texts, and whether they can be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox


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


def laid_out(figure: Figure) -> RendererBase:
    """Give every text its final place; where things stand is known without the pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    return renderer


def assert_inside(figure: Figure, extents: Sequence[tuple[object, Bbox]]) -> None:
    """Nothing is cut at the edges of the figure."""
    width, height = figure.canvas.get_width_height()
    for what, box in extents:
        assert box.x0 >= -1, what
        assert box.y0 >= -1, what
        assert box.x1 <= width + 1, what
        assert box.y1 <= height + 1, what


def assert_apart(extents: Sequence[tuple[object, Bbox]]) -> None:
    """No box overlaps another by more than a pixel at each of their edges."""
    if not extents:
        return
    # All pairs at once: figures have hundreds of texts.
    inner = [box.padded(-1) for _, box in extents]
    x0, y0, x1, y1 = np.array([(*box.min, *box.max) for box in inner]).T
    overlap = (x0[:, None] <= x1) & (x0 <= x1[:, None]) & (y0[:, None] <= y1) & (y0 <= y1[:, None])
    met = np.argwhere(np.triu(overlap, 1))
    assert not len(met), [(extents[i][0], extents[j][0]) for i, j in met]


def assert_readable(figure: Figure) -> None:
    """Nothing is cut at the edges, and no text overlaps another."""
    renderer = laid_out(figure)
    extents = [(text, text.get_window_extent(renderer)) for text in shown_texts(figure)]
    assert_inside(figure, extents)
    assert_apart(extents)
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        assert box.x0 >= -1
        assert box.x1 <= figure.canvas.get_width_height()[0] + 1
        assert box.y0 >= -1


def axes_named(figure: Figure, start: str) -> Axes:
    """The one axes whose label begins so."""
    (found,) = (ax for ax in figure.axes if str(ax.get_label()).startswith(start))
    return found


def lines(ax: Axes) -> dict[str, Line2D]:
    """The lines of models, by id."""
    return {str(line.get_label()): line for line in ax.lines if "_" not in str(line.get_label())}
