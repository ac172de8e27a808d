"""Frames of videos with the masks that were predicted, and the outlines of the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from vitfeat.data.masks import palette
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.overlay import resized
from vitfeat.figures.sheet import Sheet, Space

Pixels = NDArray[np.uint8]
Mask = NDArray[np.uint8]

ALPHA = 0.6
"""Weight of an object's colour over the frame."""

OUTLINE = 0.25
"""Share of white in the colour of a true outline; the rest is the object's at full brightness."""

LINE = "#D8D8D8"
"""Of outlines in the legend."""

GROUND = 110
"""Grey below the objects in the legend, which look there as they do in frames."""

NUMBER_SIZE, NUMBER_ROOM = 6.0, 0.035
"""Of the numbers of objects: points, and inches around its middle that an area needs for one."""

WIDEST = 7.4
"""Inches that the widest row may take."""

HEIGHT = 1.1
"""Inches of a frame where there is room."""

GAP, LABEL, CAPTION, BELOW = 0.06, 0.13, 0.17, 0.12
"""Between frames; above them, for their numbers and the row's caption; below them. Inches."""

VOID = 255
"""Number of pixels that the truth says nothing of: drawn as background."""


@dataclass(frozen=True, eq=False)
class StripRow:
    """Some frames of a sequence, all of one size; frame 0 is marked as given.

    Frames are uint8 (H, W, 3), masks uint8 (H, W) of the numbers of objects; None of a frame
    without a true mask.
    """

    caption: str
    numbers: Sequence[int]
    frames: Sequence[Pixels]
    predicted: Sequence[Mask]
    truth: Sequence[Mask | None]


def chosen_frames(n: int, most: int) -> list[int]:
    """Choose frames to draw, at least 2: the first, the last, and others at even distances."""
    if n <= most:
        return list(range(n))
    return [(2 * i * (n - 1) + most - 1) // (2 * (most - 1)) for i in range(most)]


@style.settings()
def frames_figure(rows: Sequence[StripRow], title: str, note: str) -> Figure:
    """Draw rows of frames, one sequence each.

    Predicted objects are laid over the frame in the colours of DAVIS, with their numbers where
    there is room. Lines are where the true ones end, in the object's colour at full brightness: a
    line of another colour than the area shows objects taken for each other.
    """
    if not rows:
        raise AnalysisError("no sequence to draw: give one or more")
    for row in rows:
        _check(row)
    aspects = [len(row.frames) * _aspect(row) for row in rows]
    gaps = [GAP * (len(row.frames) - 1) for row in rows]
    height = min([HEIGHT, *((WIDEST - g) / a for a, g in zip(aspects, gaps, strict=True))])
    widths = [height * a + g for a, g in zip(aspects, gaps, strict=True)]
    widths += [text_width(row.caption, style.SMALL_SIZE, "bold") for row in rows]
    sheet = Sheet(
        [Space(CAPTION + LABEL, height, BELOW)] * len(rows),
        [Space(0, max(widths), 0)],
        title=title,
        note=note,
        legend=_legend(rows),
    )
    for place, row in enumerate(rows):
        ax = sheet.axes(place)
        _draw(ax, row, height, max(widths))
    return sheet.figure


def painted(frame: Pixels, predicted: Mask, truth: Mask | None, size: tuple[int, int]) -> Pixels:
    """Lay predicted areas and true outlines over a frame, drawn at a size (height, width)."""
    picture = resized(frame, size).astype(np.float64)
    colours = palette().astype(np.float64)
    areas = _at(predicted, size)
    inside = (areas > 0) & (areas != VOID)
    picture[inside] += ALPHA * (colours[areas[inside]] - picture[inside])
    if truth is not None:
        true = _at(truth, size)
        true[true == VOID] = 0
        near = _near_other(true, max(1, round(min(size) / 110)))
        # Dark on the outside: the line shows on white ground as on black.
        picture[near] = _line_colours()[true[near]]
    return np.rint(picture).astype(np.uint8)


@cache
def _line_colours() -> NDArray[np.float64]:
    """Return what outlines of objects have, (256, 3); 0 is what is beside them."""
    colours = palette().astype(np.float64)
    full = colours * (255 / np.maximum(colours.max(1, keepdims=True), 1))
    lines = full + OUTLINE * (255 - full)
    lines[0] = 0
    return np.asarray(lines)


def middles(predicted: Mask) -> dict[int, tuple[float, float, float]]:
    """Find the place in each object that is furthest from where it ends, by its number.

    Row and column, in pixels from the upper left corner (0.5 is the middle of the first pixel), and
    how far it is from there to the next pixel of something else, or to the edge of the frame. Of
    equal places the first.
    """
    places: dict[int, tuple[float, float, float]] = {}
    for number in np.unique(predicted).tolist():
        if number not in (0, VOID):
            inside = distance_transform_edt(np.pad(predicted == number, 1))[1:-1, 1:-1]
            row, column = np.unravel_index(int(inside.argmax()), inside.shape)
            places[number] = (int(row) + 0.5, int(column) + 0.5, float(inside.max()) - 0.5)
    return places


def _at(mask: Mask, size: tuple[int, int]) -> Mask:
    return np.array(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def _near_other(mask: Mask, width: int) -> NDArray[np.bool_]:
    """Mark pixels that have another number at most so many rows or columns away."""
    near = np.zeros(mask.shape, dtype=bool)
    for step in range(1, width + 1):
        down, right = mask[step:] != mask[:-step], mask[:, step:] != mask[:, :-step]
        near[step:] |= down
        near[:-step] |= down
        near[:, step:] |= right
        near[:, :-step] |= right
    return near


def _check(row: StripRow) -> None:
    counts = {len(part) for part in (row.numbers, row.frames, row.predicted, row.truth)}
    sizes = {one.shape[:2] for one in (*row.frames, *row.predicted, *row.truth) if one is not None}
    if len(counts) != 1 or len(sizes) != 1:
        raise AnalysisError(
            f"row {row.caption!r}: every frame needs a number, a predicted mask and a true one or "
            "None, all of one size, and there must be a frame"
        )


def _aspect(row: StripRow) -> float:
    height, width = row.frames[0].shape[:2]
    return float(width / height)


def _draw(ax: Axes, row: StripRow, height: float, whole: float) -> None:
    """Draw a row into axes in inches, of the height of a frame and the width of the widest row."""
    ax.set_xlim(0, whole)
    ax.set_ylim(0, height)
    ax.set_axis_off()
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_label(row.caption)
    width = height * _aspect(row)
    size = (max(1, round(height * style.DPI)), max(1, round(width * style.DPI)))
    names = _names(row.numbers, width)
    parts = zip(names, row.frames, row.predicted, row.truth, strict=True)
    for place, (name, frame, predicted, truth) in enumerate(parts):
        left = place * (width + GAP)
        picture = painted(frame, predicted, truth, size)
        ax.imshow(picture, extent=(left, left + width, 0, height), aspect="auto")
        ax.text(left, height + 0.03, name, size=style.SMALL_SIZE, va="bottom")
        pixel = height / predicted.shape[0]
        for number, (down, along, room) in middles(predicted).items():
            if room * pixel >= NUMBER_ROOM:
                _number(ax, left + along * pixel, height - down * pixel, number)
    # Each picture set the limits to its own.
    ax.set_xlim(0, whole)
    ax.set_ylim(0, height)
    ax.text(
        0,
        height + LABEL + 0.02,
        row.caption,
        weight="bold",
        size=style.SMALL_SIZE,
        va="bottom",
        # Names of sequences may hold what would be read as a formula.
    )


def _names(numbers: Sequence[int], width: float) -> list[str]:
    """Name frames at the length that they have room for."""
    for before, behind in (("frame ", ", given"), ("", ", given"), ("", "")):
        names = [f"{before}{number}" + ("" if number else behind) for number in numbers]
        if max(text_width(name, style.SMALL_SIZE) for name in names) <= width:
            break
    return names


def _number(ax: Axes, x: float, y: float, number: int) -> None:
    text = ax.text(
        x,
        y,
        str(number),
        size=NUMBER_SIZE,
        weight="bold",
        color="white",
        ha="center",
        va="center_baseline",
    )
    text.set_path_effects([Stroke(linewidth=1.4, foreground="black"), Normal()])


def _legend(rows: Sequence[StripRow]) -> list[Artist]:
    shown = {int(n) for row in rows for mask in row.predicted for n in np.unique(mask)}
    shown |= {
        int(n) for row in rows for mask in row.truth if mask is not None for n in np.unique(mask)
    }
    handles: list[Artist] = [
        Patch(
            facecolor=tuple((ALPHA * palette()[n] + (1 - ALPHA) * GROUND) / 255),
            edgecolor=tuple(_line_colours()[n] / 255),
            lw=1.0,
            label=f"object {n}",
        )
        for n in sorted(shown - {0, VOID})
    ]
    if any(mask is not None for row in rows for mask in row.truth):
        line = Line2D([], [], color=LINE, lw=1.4, label="true object's outline")
        line.set_path_effects([Stroke(linewidth=3.0, foreground="black"), Normal()])
        handles.append(line)
    return handles
