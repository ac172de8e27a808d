"""Queries beside the images that a model finds most like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.labels import wrapped
from vitfeat.figures.overlay import MARK_COLOUR, resized
from vitfeat.figures.sheet import Sheet, Space, bare

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

POSITIVE, NEGATIVE, IGNORED = "#00854D", "#C2381B", "#8C8C8C"
"""Of frames; what each image is stands below it too."""

FRAMES: Mapping[str, tuple[str, float]] = MappingProxyType(
    {"easy": (POSITIVE, 2.2), "hard": (POSITIVE, 2.2), "junk": (IGNORED, 1.0), "": (NEGATIVE, 1.0)}
)
"""Colour of the frame, and its width in points, by grade; an image without one is a negative."""

CELL, GAP, APART = 0.68, 0.1, 0.22
"""Inches: side of the square that a picture fits into, between two, and behind the query."""

BOX = 1.4
"""Width in points of the box of a query."""

LINE, HEAD, BETWEEN = 0.115, 0.16, 0.1
"""Inches: a line of text below pictures, above the first row, and between rows."""

NAME_LINES = 2
"""Lines that the query's name may take."""


@dataclass(frozen=True)
class Result:
    """An image that was found, uint8 (height, width, 3), and its grade out of :data:`FRAMES`."""

    picture: Pixels
    grade: str


@dataclass(frozen=True)
class Search:
    """A query and what was found, most similar first.

    ``box`` is the part of the picture that was looked for: left, top, right, bottom as shares of
    width and height; None for all of it. ``average_precision`` is None where it does not count.
    """

    name: str
    picture: Pixels
    box: Box | None
    average_precision: float | None
    results: Sequence[Result]


@style.settings()
def ranking_figure(searches: Sequence[Search], *, title: str, note: str) -> Figure:
    """Draw queries one below another, each beside its first results."""
    if not searches:
        raise AnalysisError("a figure of rankings needs a query")
    most = max(len(one.results) for one in searches)
    width = CELL + APART + most * (CELL + GAP) - GAP
    names = [_name_lines(one.name) for one in searches]
    below = LINE * (1 + max(map(len, names)))
    last = len(searches) - 1
    sheet = Sheet(
        [
            Space(HEAD if not at else 0, CELL + below, BETWEEN if at < last else 0.04)
            for at in range(len(searches))
        ],
        [Space(0.04, width, 0.04)],
        title=title,
        note=note,
        legend=_legend(searches),
        remarks=[
            "AP: average precision of the whole ranking, medium: easy and hard images are "
            "positive, junk is left out. Numbers are ranks."
        ],
    )
    for row, (one, lines) in enumerate(zip(searches, names, strict=True)):
        ax = sheet.axes(row)
        bare(ax, one.name)
        ax.set_xlim(0, width)
        ax.set_ylim(CELL + below, 0)
        _query(ax, one, lines)
        for rank, result in enumerate(one.results, 1):
            left = CELL + APART + (rank - 1) * (CELL + GAP)
            place = _put(ax, result.picture, left)
            _frame(ax, place, *FRAMES[result.grade])
            _text(ax, left + CELL / 2, 1, f"{rank} {result.grade or 'negative'}", side="center")
        if not row:
            _text(ax, 0, -1, "query", above=True)
            _text(ax, CELL + APART, -1, "most similar first →", above=True)
    return sheet.figure


def _legend(searches: Sequence[Search]) -> list[Patch]:
    grades = {result.grade for one in searches for result in one.results}
    drawn = [
        (FRAMES[grade], label)
        for grade, label in (
            ("easy", "positive: easy or hard"),
            ("", "negative"),
            ("junk", "junk: neither"),
        )
        if grade in grades or (grade == "easy" and "hard" in grades)
    ]
    if any(one.box is not None for one in searches):
        drawn.append(((MARK_COLOUR, BOX), "box of the query, all that the model sees of it"))
    return [
        Patch(facecolor="none", edgecolor=colour, lw=width, label=label)
        for (colour, width), label in drawn
    ]


def _name_lines(name: str) -> list[str]:
    lines = wrapped(name, CELL + APART - 0.04)
    if len(lines) > NAME_LINES:
        lines = [*lines[: NAME_LINES - 1], f"{lines[NAME_LINES - 1][:-1]}…"]
    return lines


def _query(ax: Axes, one: Search, lines: Sequence[str]) -> None:
    left, top, width, height = _put(ax, one.picture, 0)
    if one.box is not None:
        x0, y0, x1, y1 = one.box
        inner = (left + x0 * width, top + y0 * height, (x1 - x0) * width, (y1 - y0) * height)
        _frame(ax, inner, MARK_COLOUR, BOX)
    for at, line in enumerate(lines, 1):
        _text(ax, 0, at, line)
    known = one.average_precision
    found = "no positive" if known is None else f"AP {known:.3f}"
    _text(ax, 0, len(lines) + 1, found, weight="bold")


def _put(ax: Axes, picture: Pixels, left: float) -> Box:
    """Draw a picture in the middle of its square; return its left, top, width and height."""
    height, width = (CELL * side / max(picture.shape[:2]) for side in picture.shape[:2])
    # Larger ones would only make the files larger.
    limit = round(CELL * style.DPI)
    if max(picture.shape[:2]) > limit:
        scale = limit / max(picture.shape[:2])
        tall, wide = (max(1, round(side * scale)) for side in picture.shape[:2])
        picture = resized(picture, (tall, wide))
    x, y = left + (CELL - width) / 2, (CELL - height) / 2
    ax.imshow(picture, extent=(x, x + width, y + height, y), aspect="auto")
    return x, y, width, height


def _frame(ax: Axes, place: Box, colour: str, line: float) -> None:
    left, top, width, height = place
    ax.add_patch(
        Rectangle((left, top), width, height, fill=False, ec=colour, lw=line, clip_on=False)
    )


def _text(
    ax: Axes,
    x: float,
    line: int,
    text: str,
    *,
    above: bool = False,
    weight: str = "normal",
    side: str = "left",
) -> None:
    """Write a line below the pictures, counted from 1, or above them."""
    y = -0.05 if above else CELL + 0.03 + (line - 1) * LINE
    ax.text(
        x,
        y,
        text,
        ha=side,
        va="bottom" if above else "top",
        size=style.SMALL_SIZE,
        weight=weight,
    )
