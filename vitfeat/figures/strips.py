"""The frame of figures with a small panel for each model or family: rows of cells, few axes.

All cells of a row share one axes, which makes hundreds of panels as quick to draw as a dozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitfeat.figures import style
from vitfeat.figures.labels import wrapped
from vitfeat.figures.sheet import EDGE, LINE_HEIGHT, Sheet, Space

Floats = NDArray[np.float64]

GAP = 0.09
"""Between cells, in inches."""

BETWEEN, BELOW = 0.1, 0.2
"""Below a row with another one of the same cells below it, and below the last, in inches."""

TICKS, BEHIND = 0.36, 0.1
"""Beside a row, for its numbers, and behind it, in inches."""

INSET = 0.05
"""Share of a cell that its values leave free on each side."""

FRAME = "#8C8C8C"


WIDEST = 1.5
"""Of cells with curves or dots, in inches."""


def cells_on_page(count: int, least: float, ticks: float) -> tuple[int, tuple[float, float]]:
    """Return how many cells with curves or dots stand side by side, and their width and height.

    So many that none is narrower than `least`; `ticks` is as :class:`Strips` takes it, all in
    inches. They are less high where they go on below.
    """
    # A heading beside a row has up to three lines.
    room = style.PAGE_WIDTH - 2 * EDGE - ticks - 3 * LINE_HEIGHT - BEHIND
    most = max(1, int((room + GAP) / (least + GAP)))
    lines = max(1, -(-count // most))
    across = max(1, -(-count // lines))
    return most, (min(WIDEST, (room + GAP) / across - GAP), 0.85 if lines == 1 else 0.71)


@dataclass(frozen=True)
class Cell:
    """What stands above the cells of one model or family, and below its first and last value."""

    title: str
    colour: str
    ends: tuple[str, str]


@dataclass(frozen=True)
class Track:
    """A row of cells on one scale: its name in the axes' label, and the heading beside it."""

    name: str
    heading: str
    limits: tuple[float, float]


class Strips:
    """Rows of cells: every track has a cell for each model or family.

    Where there are more cells than `most` side by side, they go on below, with all tracks again.

    Parameters
    ----------
    size, ticks, behind
        Inches: width and height of a cell, room for numbers beside each row, and behind the cells.
    across
        What goes from the first to the last value: stands between their numbers.
    inset
        Share of a cell that its values leave free on each side.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        tracks: Sequence[Track],
        *,
        most: int,
        size: tuple[float, float],
        across: str,
        title: str,
        note: str,
        ticks: float = TICKS,
        behind: float = BEHIND,
        inset: float = INSET,
        legend: Sequence[Artist] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        self._count, self._inset = len(tracks), inset
        lines = -(-len(cells) // most)
        self._per_line = -(-len(cells) // lines)
        self._step = 1 + GAP / size[0]
        titles = [wrapped(cell.title, size[0] + GAP / 2, weight="bold") for cell in cells]
        headings = [wrapped(track.heading, size[1]) for track in tracks]
        above = 0.06 + LINE_HEIGHT * max(map(len, titles))
        beside = ticks + LINE_HEIGHT * max(map(len, headings))
        rows = [
            Space(above if not at else 0, size[1], BETWEEN if at < len(tracks) - 1 else BELOW)
            for _ in range(lines)
            for at in range(len(tracks))
        ]
        width = size[0] * self._per_line + GAP * (self._per_line - 1)
        self.sheet = Sheet(
            rows,
            [Space(beside, width, behind)],
            title=title,
            note=note,
            legend=legend,
            remarks=remarks,
        )
        self._axes: list[Axes] = []
        for line in range(lines):
            here = cells[line * self._per_line : (line + 1) * self._per_line]
            for at, track in enumerate(tracks):
                ax = self._add(line * len(tracks) + at, here, track, line)
                away = -(beside - EDGE / 2) / width
                ax.text(
                    away,
                    0.5,
                    "\n".join(headings[at]),
                    transform=ax.transAxes,
                    rotation=90,
                    ha="left",
                    va="center",
                    size=style.SMALL_SIZE,
                    linespacing=1.1,
                    multialignment="center",
                )
            self._name(self._axes[line * len(tracks)], here, titles[line * self._per_line :])
            self._number(self._axes[-1], here, across)

    @property
    def figure(self) -> Figure:
        """The figure."""
        return self.sheet.figure

    def ax(self, track: int, cell: int) -> Axes:
        """Return the axes that a cell of a track is in."""
        return self._axes[cell // self._per_line * self._count + track]

    def rows(self, track: int) -> list[Axes]:
        """Return all axes of a track."""
        return self._axes[track :: self._count]

    def x(self, cell: int, share: Floats | float) -> Floats:
        """Return where a share of a cell's width, from 0 to 1, is in its axes."""
        inner = self._inset + np.asarray(share, dtype=np.float64) * (1 - 2 * self._inset)
        return np.asarray(cell % self._per_line * self._step + inner)

    def _add(self, row: int, cells: Sequence[Cell], track: Track, line: int) -> Axes:
        ax = self.sheet.axes(row)
        ax.set_label(f"{track.name}/{line}")
        ax.set_xlim(0, (self._per_line - 1) * self._step + 1)
        ax.set_ylim(track.limits)
        ax.set_xticks([])
        ax.spines[:].set_visible(False)
        corners = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
        frames = [[(index * self._step + x, y) for x, y in corners] for index in range(len(cells))]
        outline = LineCollection(
            frames, colors=FRAME, lw=0.6, transform=ax.get_xaxis_transform(), clip_on=False
        )
        ax.add_collection(outline, autolim=False)
        self._axes.append(ax)
        return ax

    def _name(self, ax: Axes, cells: Sequence[Cell], titles: Sequence[Sequence[str]]) -> None:
        for index, cell in enumerate(cells):
            ax.annotate(
                "\n".join(titles[index]),
                (index * self._step, 1),
                (0, 3),
                xycoords=ax.get_xaxis_transform(),
                textcoords="offset points",
                size=style.SMALL_SIZE,
                weight="bold",
                color=cell.colour,
                linespacing=1.1,
            )

    def _number(self, ax: Axes, cells: Sequence[Cell], across: str) -> None:
        """Write below each cell the numbers of its first and last value, and of what they are."""
        for index, cell in enumerate(cells):
            first, last = cell.ends
            for text, at, side in ((first, 0, "left"), (across, 0.5, "center"), (last, 1, "right")):
                if text:
                    ax.annotate(
                        text,
                        (index * self._step + at, 0),
                        (0, -2.5),
                        xycoords=ax.get_xaxis_transform(),
                        textcoords="offset points",
                        size=style.SMALL_SIZE,
                        ha=side,
                        va="top",
                    )
