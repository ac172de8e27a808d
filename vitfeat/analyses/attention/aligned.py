"""Figure of one model's aligned maps: attention by offset from the query, a map for each head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vitfeat.analyses.attention.map_file import OFFSET_MAPS, AttentionMaps
from vitfeat.analyses.attention.metrics import offsets
from vitfeat.analyses.attention.mosaic import Mosaic, Titled, arranged, colour_bar, mosaic, sheet_of
from vitfeat.analyses.attention.token_maps import source
from vitfeat.analyses.attention.tokens import coverage
from vitfeat.errors import AnalysisError
from vitfeat.figures import overlay, style
from vitfeat.figures.models import Model

Floats = NDArray[np.float64]

TITLES: Mapping[str, tuple[str, str]] = {
    "aligned": ("Mean over queries", "sums to 1 a head"),
    "aligned_by_coverage": ("By coverage", "mean over the queries that have a key there"),
}

WELL_COVERED = 0.1
"""Share of queries that have a key at the offsets which the scale of `By coverage` is made from:
the corners are of single queries."""


def mean_offsets(maps: AttentionMaps) -> Floats:
    r"""Return the mean offset of each head.

    .. math:: \sum_{dy, dx} \mathrm{aligned}_{h, dy, dx} \, (dy, dx)

    It is linear in the attention: that of mean maps is the mean of the images' offsets.

    Parameters
    ----------
    maps
        Of one model.

    Returns
    -------
    NDArray
        (layer, head, 2): dy and dx, in patches.
    """
    aligned = np.asarray(maps.arrays["aligned"], dtype=np.float64)
    parts = offsets(maps.tokens.grid, "patches")
    return np.stack([(aligned * part).sum(axis=(-2, -1)) for part in parts], axis=-1)


def levels(name: str, maps: AttentionMaps) -> Floats:
    """Return aligned maps, each divided by its own maximum, as colours show them.

    By coverage, the maximum is over offsets that :data:`WELL_COVERED` of all queries have a key
    at, and what is larger beyond them is cut off.

    Parameters
    ----------
    name
        ``aligned`` or ``aligned_by_coverage``.
    maps
        Of one model.
    """
    values = np.asarray(maps.arrays[name], dtype=np.float64)
    counted = np.ones(values.shape[-2:], dtype=bool)
    if name == "aligned_by_coverage":
        counted = coverage(maps.tokens.grid) >= WELL_COVERED * maps.tokens.n_spatial
    top = np.where(counted, values, -np.inf).max(axis=(-2, -1), keepdims=True)
    return np.clip(values / np.where(top == 0, 1, top), 0, 1)


def aligned_figure(maps: AttentionMaps, model: Model) -> Figure:
    """Draw the aligned maps of a model, as they are and by coverage.

    Ticks around the maps point at the query; a line leads from it to the mean offset.

    Parameters
    ----------
    maps
        Of the model.
    model
        For its label.

    Raises
    ------
    AnalysisError
        There are no aligned maps.
    """
    names = [name for name in OFFSET_MAPS if name in maps.arrays]
    if not names:
        raise AnalysisError(
            f"no aligned maps of {maps.model} on {maps.dataset}: compute them (vitfeat run "
            "attention)"
        )
    drawn = {name: levels(name, maps) for name in names}
    shape, size = drawn[names[0]].shape[:2], drawn[names[0]].shape[2:]
    across, pixels = arranged(len(names), (shape[0], shape[1]), (size[0], size[1]), bars=False)
    shown = [Titled(mosaic(drawn[name], pixels), *TITLES[name], name) for name in names]
    rows, columns = maps.tokens.grid
    with style.settings():
        sheet, axes = sheet_of(
            shown,
            across,
            maps.layers,
            title=f"{model.label}: attention by offset from the query",
            note=f"{source(maps)} and spatial queries. Each map has its query in the middle and "
            f"reaches {rows - 1} patches up and down, {columns - 1} left and right; from 0 to its "
            "own maximum.",
            legend=[_handle()],
            remarks=_remarks(maps, names),
        )
        colour_bar(sheet, axes[0], "attention", "own maximum")
        for one, ax in zip(shown, axes, strict=True):
            _queries(ax, one.mosaic, shape)
            if one.label == "aligned":
                _offsets(ax, one.mosaic, mean_offsets(maps))
    return sheet.figure


def _handle() -> Line2D:
    return Line2D(
        [],
        [],
        color=overlay.MARK_COLOUR,
        marker="o",
        ms=2.2,
        lw=0.9,
        label="mean offset from query",
    )


def _remarks(maps: AttentionMaps, names: list[str]) -> list[str]:
    kept = "count as zero" if maps.null_rows == "zero" else "are left out"
    remarks = [
        f"Rows are renormalised over the grid; queries that attend to no spatial token {kept}.",
    ]
    if "aligned_by_coverage" in names:
        remarks.append(
            "By coverage, the maximum is over offsets that a tenth of the queries have a key at; "
            "larger values beyond them have the colour of the maximum."
        )
    return remarks


def _queries(ax: Axes, drawn: Mosaic, shape: tuple[int, ...]) -> None:
    """Point at the middle of each map, from the gaps around it."""
    high, wide = (n * drawn.scale for n in drawn.grid)
    lines = []
    for layer, head in np.ndindex(*shape):
        x, y = drawn.place(layer, head, (drawn.grid[0] - 1) / 2, (drawn.grid[1] - 1) / 2)
        for side in (-1, 1):
            edge_y, edge_x = y + side * high / 2, x + side * wide / 2
            lines.append([(x, edge_y), (x, edge_y - side * high / 10)])
            lines.append([(edge_x, y), (edge_x - side * wide / 10, y)])
    marks = LineCollection(lines, colors="white", lw=0.5)
    marks.set_label("queries")
    ax.add_collection(marks, autolim=False)


def _offsets(ax: Axes, drawn: Mosaic, found: Floats) -> None:
    middle = np.subtract(drawn.grid, 1) / 2
    lines = []
    for layer, head in np.argwhere(np.isfinite(found).all(axis=-1)):
        start = drawn.place(layer, head, *middle)
        lines.append([start, drawn.place(layer, head, *(middle + found[layer, head]))])
    arrows = LineCollection(lines, colors=overlay.MARK_COLOUR, lw=0.9)
    arrows.set_label("offsets")
    ax.add_collection(arrows, autolim=False)
    ends = np.reshape([line[1] for line in lines], (-1, 2))
    ax.plot(*ends.T, ls="none", marker="o", ms=1.4, mew=0, color=overlay.MARK_COLOUR)
