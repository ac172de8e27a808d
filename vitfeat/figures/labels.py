"""Where texts stand: lines broken to a width, labels beside lines and points that never overlap."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from vitfeat.figures import style
from vitfeat.figures.fonts import readable, text_width

Floats = NDArray[np.float64]

LINE_GAP = 1.25
"""Between the middles of labels one above another, in font sizes."""

HINTING = 1.06
"""How much wider than its outlines a text may be when it is drawn in few pixels."""

LEADER = 0.13
"""Inches from the panel to its labels."""


def drawn_width(text: str, size: float = style.SMALL_SIZE, weight: str = "normal") -> float:
    """Inches that a text may take in the picture: more than its outlines do."""
    return text_width(text, size, weight) * HINTING


def wrapped(
    text: str, width: float, size: float = style.SMALL_SIZE, weight: str = "normal"
) -> list[str]:
    """Break a text so that no line is wider than so many inches.

    It is broken at spaces, but not within brackets that fit on a line, as units do; a word that is
    wider by itself behind hyphens, dots and the like, and where that is not enough, anywhere.
    """

    def fits(text: str) -> bool:
        return drawn_width(text, size, weight) <= width

    text = readable(text)
    lines: list[str] = []
    for word in _words(text, fits):
        for place, part in enumerate(_parts(word, fits)):
            longer = f"{lines[-1]}{'' if place else ' '}{part}" if lines else part
            if lines and fits(longer):
                lines[-1] = longer
            else:
                lines.append(part)
    return lines


def _words(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Split a text at spaces, except those within brackets that fit on a line."""
    bracketed = re.findall(r"[^\s(]*\([^()]*\)\S*|\S+", text)
    return [part for one in bracketed for part in ([one] if fits(one) else one.split())]


def _parts(word: str, fits: Callable[[str], bool]) -> list[str]:
    """Cut a word that is too wide where it may be broken."""
    if fits(word):
        return [word]
    parts = re.findall(r"[^-_./@]*[-_./@]|[^-_./@]+", word)
    return [piece for part in parts for piece in ([part] if fits(part) else list(part))]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> Floats:
    """Move positions apart, and each as little as possible.

    Of all positions in the same order, `gap` apart or more, those with the least sum of squared
    moves; then as far within [low, high] as there is room. With z_i = y_i - i gap that is the
    isotonic regression of z, found by pooling neighbours that are in the wrong order.

    Returns positions in the order of `wanted`.

    Parameters
    ----------
    wanted
        Positions, in any order.
    gap
        Least distance.
    low, high
        Bounds; where they are too close, positions are `gap` apart around their middle.
    """
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    pools: list[list[float]] = []
    for value in np.asarray(wanted, dtype=np.float64)[order] - steps:
        pools.append([float(value), 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, count), (before, more) = pools.pop(), pools.pop()
            pools.append([(mean * count + before * more) / (count + more), count + more])
    pooled = np.repeat([mean for mean, _ in pools], [int(count) for _, count in pools])
    top = high - (steps[-1] if len(steps) else 0)
    if top < low:
        low = top = (low + top) / 2
    found = np.empty(len(wanted))
    found[order] = np.clip(pooled, low, top) + steps
    return found


@dataclass(frozen=True)
class End:
    """Where a line ends, in the data's coordinates, and what is to be written beside it."""

    x: float
    y: float
    text: str
    colour: str


def end_labels(ax: Axes, ends: Sequence[End], size: float = style.SMALL_SIZE) -> None:
    """Write labels right of a panel, at the height of their lines' ends and never overlapping.

    A thin leader joins each label to its line; ends that are not finite are labelled at the bottom,
    without leader. Limits and scales of the axes must be set, and :data:`LEADER` with the widest
    label have room to the right.
    """
    if not ends:
        return
    width, height = panel_size(ax)
    to_axes = ax.transScale + ax.transLimits
    places: Floats = np.reshape(to_axes.transform([(end.x, end.y) for end in ends]), (-1, 2))
    has_leader = [bool(np.isfinite(place).all()) for place in places]
    wanted = np.where(has_leader, np.clip(places[:, 1], 0, 1), 0) * height
    letters = size / 72
    # Names of panels stand above, nothing at the height of the numbers below.
    heights = spread(list(wanted), LINE_GAP * letters, -letters, height - letters / 2) / height
    at = 1 + LEADER / width
    leaders = []
    for end, place, y, leads in zip(ends, places, heights, has_leader, strict=True):
        ax.text(
            at,
            y,
            end.text,
            transform=ax.transAxes,
            va="center_baseline",
            size=size,
            color=end.colour,
        )
        if leads:
            near = 1 + 0.3 * LEADER / width
            leaders.append([place, (max(near, place[0]), place[1]), (at - 0.02 / width, y)])
    colours = [end.colour for end, leads in zip(ends, has_leader, strict=True) if leads]
    lines = LineCollection(
        leaders, colors=colours, lw=0.4, alpha=0.7, transform=ax.transAxes, clip_on=False
    )
    lines.set_label("leaders")
    ax.add_collection(lines, autolim=False)


@dataclass(frozen=True)
class Placed:
    """A label beside a point: its lower left corner in inches, and whether it needs a leader."""

    x: float
    y: float
    leads: bool


def point_labels(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    height: float,
    box: tuple[float, float],
    marker: float = 0.04,
) -> list[Placed | None]:
    """Place labels beside points so that they cover neither one another nor any point.

    Each takes, of free places on rings around its point, one that is near and further from other
    points than from its own. None where no place is free.

    Parameters
    ----------
    points
        In inches from the panel's lower left corner.
    widths, height
        Of the labels, in inches.
    box
        Width and height of the panel, which labels do not leave.
    marker
        Radius of the points, in inches.
    """
    places = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    markers = np.hstack([places - marker, places + marker])
    found: list[Placed | None] = [None] * len(places)
    taken: list[Floats] = [np.empty((0, 4))] * len(places)
    for _ in range(_ROUNDS):
        # Labels that came first stood in the way of later ones: all look again.
        for index, width in enumerate(widths):
            others = np.delete(markers, index, axis=0)
            in_the_way = np.vstack([others, *taken[:index], *taken[index + 1 :]])
            found[index], taken[index] = _place(
                index, places, (width, height), box, marker, in_the_way
            )
    return found


def _place(
    index: int,
    places: Floats,
    size: tuple[float, float],
    box: tuple[float, float],
    marker: float,
    in_the_way: Floats,
) -> tuple[Placed | None, Floats]:
    """Place one label; return the boxes that it and its leader take, too."""
    point = places[index]
    rings, corners = _candidates(point, *size, marker)
    rects = np.hstack([corners, corners + np.array(size)])
    free = (rects[:, :2] >= 0).all(axis=1) & (rects[:, 2:] <= box).all(axis=1)
    own = np.hstack([point - marker / 2, point + marker / 2])
    free &= ~_overlap(rects[:, None], np.vstack([in_the_way, own])).any(axis=1)
    if not free.any():
        return None, np.empty((0, 4))
    others = np.delete(places, index, axis=0)
    nearest = _distances(rects[:, None], others).min(axis=1, initial=np.inf)
    cost = rings + np.clip(rings + _AWAY - nearest, 0, None)
    led = rings > _NEAR + marker
    leaders = _leaders(point, rects)
    crossing = _overlap(leaders[:, :, None], in_the_way).any(axis=(1, 2))
    best = int(np.argmin(np.where(free, cost + _CROSSING * (crossing & led), np.inf)))
    boxes = rects[best : best + 1]
    if led[best]:
        boxes = np.vstack([boxes, leaders[best]])
    return Placed(float(corners[best, 0]), float(corners[best, 1]), bool(led[best])), boxes


_ROUNDS = 2
_RINGS = (0.02, 0.06, 0.12, 0.2, 0.3, 0.42, 0.56, 0.76)
_ANGLES = np.radians([0, 180, 35, -35, 145, -145, 90, -90, 65, -65, 115, -115, 15, -15])
_NEAR = 0.07
"""Inches between a point's rim and its label beyond which a leader joins them."""

_AWAY = 0.06
"""Inches that a label should be further from other points than from its own."""


_CROSSING = 0.5
"""What a leader across a point, a label or another leader costs, in inches."""


def _leaders(point: Floats, boxes: Floats) -> Floats:
    """Small boxes along the lines from a point to the nearest points of labels, (label, 12, 4)."""
    ends = np.clip(point, boxes[:, :2], boxes[:, 2:])
    along = point + np.linspace(0, 0.95, 12)[:, None] * (ends - point)[:, None]
    return np.concatenate([along - 0.005, along + 0.005], axis=-1)


def _candidates(point: Floats, width: float, height: float, marker: float) -> tuple[Floats, Floats]:
    """Distances from the point, and lower left corners of a label whose rim is so far away."""
    rings = np.repeat(np.array(_RINGS) + marker, len(_ANGLES))
    angles = np.tile(_ANGLES, len(_RINGS))
    across, up = np.cos(angles).round(6), np.sin(angles).round(6)
    x = point[0] + rings * across - width * (0.5 - 0.5 * np.sign(across))
    y = point[1] + rings * up - height * (0.5 - 0.5 * up)
    return rings, np.column_stack([x, y])


def _overlap(a: Floats, b: Floats) -> NDArray[np.bool_]:
    return np.asarray((a[..., :2] < b[..., 2:]).all(-1) & (b[..., :2] < a[..., 2:]).all(-1))


def _distances(boxes: Floats, points: Floats) -> Floats:
    nearest = np.clip(points, boxes[..., :2], boxes[..., 2:])
    return np.asarray(np.hypot(*np.moveaxis(nearest - points, -1, 0)))


def panel_size(ax: Axes) -> tuple[float, float]:
    """Width and height of an axes in inches."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    place, (width, height) = ax.get_position(), figure.get_size_inches()
    return float(place.width * width), float(place.height * height)
