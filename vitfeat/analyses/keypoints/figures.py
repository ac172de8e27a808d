"""Pairs of images with keypoints: where they are in one, and where they were found in the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from vitfeat.analyses.keypoints import SCORING
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.sheet import Sheet, Space, above

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

HIT, MISS = "#3FA7E0", "#F0803C"
"""Of lines: found and not found. They differ in lightness from black and white, which outline them,
and for the colour-blind from each other; misses are dashed besides."""

SIDE = 1.55
"""Inches of the longer side of an image."""

BETWEEN, APART, LAYER, COUNT, BELOW = 0.12, 0.3, 0.15, 0.15, 0.1
"""Inches: between source and target, between layers, above all rows, above images, below a row."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair of images and its keypoints, all places x and y in pixels of the images from 0."""

    category: str
    source: str
    target: str
    # uint8 (height, width, 3) each: source and target, of any size in proportion.
    pictures: tuple[Pixels, Pixels]
    # Width and height of each in pixels, which places count.
    sizes: tuple[tuple[int, int], tuple[int, int]]
    numbers: Sequence[int]
    # given, truth: (point, 2): in the source, and where they are in the target.
    given: Floats
    truth: Floats
    # found, hits: by layer: where they were found in the target, and whether that counts.
    found: Mapping[int, Floats]
    hits: Mapping[int, NDArray[np.bool_]]


class MatchRow(NamedTuple):
    """A keypoint of the figure; ``hit`` is 1 where it counts as found, else 0."""

    layer: int
    category: str
    source: str
    target: str
    point: int
    source_x: float
    source_y: float
    target_x: float
    target_y: float
    found_x: float
    found_y: float
    hit: int


def table(pairs: Sequence[Pair], layers: Sequence[int]) -> Iterator[MatchRow]:
    """Yield what :func:`matches_figure` shows."""
    for layer in layers:
        for pair in pairs:
            places = np.hstack((pair.given, pair.truth, pair.found[layer])).tolist()
            for point, place, hit in zip(pair.numbers, places, pair.hits[layer], strict=True):
                whose = layer, pair.category, pair.source, pair.target, point
                yield MatchRow._make((*whose, *place, int(hit)))


@style.settings()
def matches_figure(
    pairs: Sequence[Pair], layers: Sequence[int], alpha: float, *, title: str, note: str
) -> Figure:
    """Draw pairs one below the other, and layers side by side.

    Lines lead from a keypoint of the source to where it was found in the target; rings are where it
    is, and dots lead there from where it was taken to be.
    """
    if not pairs or not layers:
        raise AnalysisError("a figure of matches shows one pair or more, of one layer or more")
    shapes = [[_inches(size) for size in pair.sizes] for pair in pairs]
    source, target = (max(pair[side][0] for pair in shapes) for side in (0, 1))
    counts = [_counted(pair, layer) for pair in pairs for layer in layers]
    heading = max(text_width(text, style.SMALL_SIZE) for text in counts) + 0.1
    rest = max(0.0, heading - source - target - BETWEEN)
    heights = [max(high for _, high in pair) for pair in shapes]
    missed = any(not pair.hits[layer].all() for pair in pairs for layer in layers)
    sheet = Sheet(
        [Space(COUNT + (0 if i else LAYER), height, BELOW) for i, height in enumerate(heights)],
        [Space(0.0, source, BETWEEN), Space(0.0, target, APART + rest)] * len(layers),
        title=f"{SCORING.title}: {title}",
        note=note,
        legend=_legend(alpha, missed),
    )
    for column, layer in enumerate(layers):
        for row, pair in enumerate(pairs):
            axes = [sheet.axes(row, 2 * column + side) for side in (0, 1)]
            if not row:
                above(axes[0], f"Layer {layer}", 2 + 72 * COUNT, va="bottom", weight="bold")
            for ax, picture, size in zip(axes, pair.pictures, pair.sizes, strict=True):
                _show(ax, picture, size)
            axes[0].set_label(f"{layer} {pair.category} {pair.source}")
            axes[1].set_label(f"{layer} {pair.category} {pair.target}")
            above(axes[0], _counted(pair, layer), 2, va="bottom")
            _connect(sheet.figure, axes, pair, layer)
    return sheet.figure


def _inches(size: tuple[int, int]) -> tuple[float, float]:
    return SIDE * size[0] / max(size), SIDE * size[1] / max(size)


def _counted(pair: Pair, layer: int) -> str:
    hits = pair.hits[layer]
    return f"{pair.category}: {int(hits.sum())} of {len(hits)} found"


def _show(ax: Axes, picture: Pixels, size: tuple[int, int]) -> None:
    width, height = size
    # Whole numbers are centres of pixels. Few pixels are smoothed: the points are what counts.
    ax.imshow(
        picture,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        aspect="equal",
        interpolation="bilinear",
    )
    ax.set_anchor("NW")
    ax.set_xticks([])
    ax.set_yticks([])


def _connect(drawn: Figure, axes: Sequence[Axes], pair: Pair, layer: int) -> None:
    source, target = axes
    for given, truth, found, hit in zip(
        pair.given, pair.truth, pair.found[layer], pair.hits[layer], strict=True
    ):
        colour = HIT if hit else MISS
        target.plot(*truth, **_RING)
        if not hit:
            target.plot(*np.transpose((found, truth)), **_ERROR)
        drawn.add_artist(
            ConnectionPatch(
                xyA=given.tolist(),
                coordsA=source.transData,
                xyB=found.tolist(),
                coordsB=target.transData,
                color=colour,
                lw=0.9,
                ls=_LINES[bool(hit)],
                path_effects=[Stroke(linewidth=1.9, foreground="black", alpha=0.5), Normal()],
            )
        )
        for ax, place in ((source, given), (target, found)):
            ax.plot(*place, color=colour, **_DOT)


_LINES: dict[bool, style.LineStyle] = {True: "solid", False: (0, (2.4, 1.2))}

_DOT: dict[str, Any] = {
    "marker": "o",
    "ls": "none",
    "ms": 2.6,
    "mec": "black",
    "mew": 0.4,
    "clip_on": False,
}

_RING: dict[str, Any] = {
    "marker": "o",
    "ls": "none",
    "ms": 5.2,
    "mfc": "none",
    "mec": "white",
    "mew": 0.9,
    "clip_on": False,
    "path_effects": [Stroke(linewidth=1.7, foreground="black"), Normal()],
}


_ERROR: dict[str, Any] = {
    "color": "white",
    "lw": 0.8,
    "ls": (0, (0.8, 1.2)),
    "ms": 0,
    "clip_on": False,
    "path_effects": [Stroke(linewidth=1.8, foreground="black"), Normal()],
}


def _legend(alpha: float, missed: bool) -> list[Artist]:
    found = f"found, at most {alpha:g} of the longer side of the object's box away"
    ring = Line2D([], [], label="where the keypoint is", **_RING)
    handles: list[Artist] = [Line2D([], [], label=found, color=HIT, lw=1.2)]
    if missed:
        handles.append(Line2D([], [], label="not found", color=MISS, lw=1.2, ls=_LINES[False]))
    handles.append(ring)
    if missed:
        handles.append(Line2D([], [], label="how far off it was found", **_ERROR))
    return handles
