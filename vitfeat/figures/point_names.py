"""Names beside points, with leaders where they stand further off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.labels import Placed, panel_size, point_labels

LETTER = 1.15 * style.SMALL_SIZE / 72
"""Height of a name in inches."""


def places_of(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    box: tuple[float, float],
    marker: float = 0.04,
) -> list[Placed | None]:
    """Place names beside points, as :func:`vitfeat.figures.labels.point_labels` does."""
    widths = [text_width(text, style.SMALL_SIZE) + 0.02 for text in texts]
    return point_labels(points, widths, LETTER, box, marker)


def write_names(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colours: Sequence[str],
    places: Sequence[Placed | None],
) -> None:
    """Write names at the places of :func:`places_of`; one without a place stands on its point."""
    box = np.array(panel_size(ax))
    leaders, tints = [], []
    for point, text, colour, placed in zip(points, texts, colours, places, strict=True):
        at = placed or Placed(*point, leads=False)
        corner = np.array([at.x, at.y])
        size = np.array([text_width(text, style.SMALL_SIZE) + 0.02, LETTER])
        x, y = (corner + size / 2) / box
        ax.text(
            x,
            y,
            text,
            transform=ax.transAxes,
            ha="center",
            va="center_baseline",
            size=style.SMALL_SIZE,
            color=colour,
        )
        if at.leads:
            leaders.append(np.array([point, np.clip(point, corner, corner + size)]) / box)
            tints.append(colour)
    lines = LineCollection(leaders, colors=tints, lw=0.4, alpha=0.7, transform=ax.transAxes)
    ax.add_collection(lines, autolim=False)
