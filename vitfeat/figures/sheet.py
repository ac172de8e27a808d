"""The frame of the figures across models: a grid of panels, with all texts around it.

Sizes are in inches and follow from what is drawn, so that nothing is squeezed, cut or overlapping.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.labels import wrapped

EDGE = 0.12
TITLE_HEIGHT = 0.22
LINE_HEIGHT = 0.125
HEADING_GAP = 0.12
LEGEND_LINE = 0.16
LEGEND_HANDLE, LEGEND_POINT = 0.62, 0.42

EMPTY = (4.6, 1.2)
"""Width and height in inches of what stands for the panels of a figure that has none."""


@dataclass(frozen=True)
class Space:
    """What a row or column of panels takes: room before, the panel, room behind, in inches.

    ``before`` is above a row and left of a column.
    """

    before: float
    size: float
    after: float

    @property
    def whole(self) -> float:
        """All three together."""
        return self.before + self.size + self.after


class Numbers(ScalarFormatter):
    """Numbers of an axis that stand by themselves: no factor above the axis, where names are.

    Long ones are written with an exponent, as ``2.5e-5``.
    """

    longest = 6
    """Letters that a number may have without an exponent."""

    def __init__(self) -> None:
        super().__init__(useOffset=False)
        self.set_scientific(False)

    def format_ticks(self, values: list[float]) -> list[str]:
        """Write all numbers of an axis."""
        texts = super().format_ticks(values)
        if max(map(len, texts), default=0) <= self.longest:
            return texts
        short = [re.sub(r"e([+-])0*", r"e\1", f"{value:.4g}") for value in values]
        return [self.fix_minus(text.replace("e+", "e")) for text in short]


class Sheet:
    """A figure with title, note, legend and remarks, and room for a grid of panels.

    Parameters
    ----------
    rows, columns
        Of the grid; rows from the top down.
    title, note
        Above it; the note is small and broken to the figure's width.
    legend
        Handles with labels, below the grid.
    remarks
        Small, below the legend, each broken to the figure's width.
    """

    def __init__(
        self,
        rows: Sequence[Space],
        columns: Sequence[Space],
        *,
        title: str,
        note: str,
        legend: Sequence[Artist] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        self._rows, self._columns = rows, columns
        grid = sum(column.whole for column in columns)
        # A title may make a narrow figure as wide as a page, and no wider.
        most = max(grid, _widest_entry(legend), style.PAGE_WIDTH - 2 * EDGE)
        titles = wrapped(title, most, style.TITLE_SIZE, "bold")
        head = max(text_width(line, style.TITLE_SIZE, "bold") for line in titles)
        self.width = max(grid, head, _widest_entry(legend)) + 2 * EDGE
        inner = self.width - 2 * EDGE
        notes = wrapped(note, inner)
        below = [line for remark in remarks for line in wrapped(remark, inner)]
        lines = _legend_lines(legend, inner)
        foot = EDGE + LINE_HEIGHT * len(below)
        bottom = foot + LEGEND_LINE * lines + (0.06 if lines else 0)
        headed = EDGE + TITLE_HEIGHT * len(titles)
        self._top = headed + LINE_HEIGHT * len(notes) + 0.04
        self.height = self._top + sum(row.whole for row in rows) + bottom
        self.figure = Figure(figsize=(self.width, self.height))
        for index, line in enumerate(titles):
            above = EDGE + index * TITLE_HEIGHT
            self._text(EDGE, above, line, size=style.TITLE_SIZE, weight="bold")
        for index, line in enumerate(notes):
            self._text(EDGE, headed + index * LINE_HEIGHT, line)
        for index, line in enumerate(below):
            self._text(EDGE, self.height - foot + 0.02 + index * LINE_HEIGHT, line)
        if legend:
            self._legend(legend, inner, foot)

    def axes(self, row: int, column: int = 0) -> Axes:
        """Add the panel of a place in the grid."""
        place = self._columns[column]
        left = EDGE + sum(one.whole for one in self._columns[:column]) + place.before
        top = self._top + sum(one.whole for one in self._rows[:row]) + self._rows[row].before
        return self.box(left, top, place.size, self._rows[row].size)

    def box(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add an axes at inches from the left and the top."""
        place = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        ax = self.figure.add_axes(place)
        ax.tick_params(labelsize=style.SMALL_SIZE, width=0.5, length=2, pad=1.5)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(Numbers())
        return ax

    def right_of(self, row: int) -> tuple[float, float]:
        """Right edge of the last column's panels, and top of a row's, in inches."""
        top = self._top + sum(one.whole for one in self._rows[:row]) + self._rows[row].before
        return EDGE + sum(one.whole for one in self._columns) - self._columns[-1].after, top

    def heading(self, row: int, text: str) -> None:
        """Write a line at the top of a row's room."""
        above = self._top + sum(one.whole for one in self._rows[:row]) + (HEADING_GAP if row else 0)
        self._text(EDGE, above, text, size=style.TEXT_SIZE, weight="bold")

    def _text(self, x: float, y: float, text: str, **more: Any) -> None:
        given: dict[str, Any] = {"size": style.SMALL_SIZE, "va": "top"} | more
        self.figure.text(x / self.width, 1 - y / self.height, text, **given)

    def _legend(self, handles: Sequence[Artist], inner: float, foot: float) -> None:
        self.figure.legend(
            handles=list(handles),
            loc="lower left",
            bbox_to_anchor=(EDGE / self.width, foot / self.height),
            ncols=_legend_columns(handles, inner),
            frameon=False,
            fontsize=style.SMALL_SIZE,
            borderaxespad=0,
            borderpad=0.2,
            handlelength=3.4 if _has_lines(handles) else 1.2,
            labelspacing=0.55,
            columnspacing=1.2,
        )


def above(ax: Axes, text: str, points: float, **more: Any) -> None:
    """Write a line above the left of a panel, so many points up."""
    given: dict[str, Any] = {"size": style.SMALL_SIZE} | more
    ax.annotate(
        text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points", **given
    )


def bare(ax: Axes, label: str) -> None:
    """Leave ticks and frame out of a panel with pictures, and label it for tests."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_label(label)


def empty_figure(*, title: str, note: str, reason: str) -> Figure:
    """Draw a figure that has nothing to show, and says why."""
    lines = wrapped(reason, EMPTY[0] - 0.3, style.TEXT_SIZE)
    with style.settings():
        sheet = Sheet([Space(0.1, EMPTY[1], 0.1)], [Space(0, EMPTY[0], 0)], title=title, note=note)
        ax = sheet.axes(0)
        ax.set_label("nothing to show")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_facecolor("#F4F4F4")
        ax.spines[:].set_color(style.NO_VALUE)
        ax.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", size=style.TEXT_SIZE)
    return sheet.figure


def _widest_entry(handles: Sequence[Artist]) -> float:
    handle = LEGEND_HANDLE if _has_lines(handles) else LEGEND_POINT
    widths = [text_width(str(one.get_label()), style.SMALL_SIZE) for one in handles]
    return max(widths) + handle if widths else 0.0


def _legend_columns(handles: Sequence[Artist], width: float) -> int:
    return max(1, min(len(handles), int(width / _widest_entry(handles))))


def _legend_lines(handles: Sequence[Artist], width: float) -> int:
    return -(-len(handles) // _legend_columns(handles, width)) if handles else 0


def _has_lines(handles: Sequence[Artist]) -> bool:
    return any(isinstance(h, Line2D) and h.get_linestyle() != "None" for h in handles)
