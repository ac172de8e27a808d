"""Figures of a model's maps averaged over images, on tokens and by offset: one for each head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vitfeat.analyses.attention.map_file import (
    CLASS_DEVIATION,
    OFFSET_MAPS,
    TOKEN_MAPS,
    AttentionMaps,
)
from vitfeat.analyses.attention.metrics import coverage, offsets
from vitfeat.analyses.attention.mosaic import Mosaic, arranged, mosaic, sheet_of
from vitfeat.errors import AnalysisError
from vitfeat.figures import overlay, style
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import empty_figure
from vitfeat.text import plural

Floats = NDArray[np.float64]

RENORMALISED = "spatial_queries_renormalised"

TITLES: Mapping[str, tuple[str, str]] = {
    "all_queries": ("All queries", "mean over all tokens as queries"),
    "cls_query": ("CLS query", "what the CLS token attends to"),
    "spatial_queries": ("Spatial queries", "mean over the grid's tokens as queries"),
    RENORMALISED: ("Spatial queries, renormalised", "each query's shares on the grid"),
    "aligned": ("Mean over queries", "sums to 1 a head"),
    "aligned_by_coverage": ("By coverage", "mean over the queries that have a key there"),
}

COVERED = 0.995
"""Share of all values that the common scale shows without cutting them off."""

ABOVE = f"{100 * (1 - COVERED):.2g} %"

WELL_COVERED = 0.1
"""Share of queries that have a key at the offsets which the scale of `By coverage` is made from:
the corners are of single queries."""

MAX_ROWS = 60_000
"""Rows of a table of values; those of more are means over heads, as all stand in the file."""

MEAN_OFFSET = "mean_offset"


class TokenRow(NamedTuple):
    """A value of a token map; `head` is empty for the mean over heads.

    ``token`` is ``cls``, ``register_0`` and so on, or ``spatial``, which alone has a row ``y`` and
    a column ``x``. Values are shares of attention, whatever the figure's scale.
    """

    dataset: str
    model: str
    map: str
    layer: int
    head: int | None
    token: str
    y: int | None
    x: int | None
    value: float


class OffsetRow(NamedTuple):
    """A value of an aligned map, or the mean offset of a head.

    Offsets are in patches, to the right and downwards. ``head`` is empty for the mean over heads.
    Rows of the map ``mean_offset`` have no value: (dy, dx) is the mean offset.
    """

    dataset: str
    model: str
    map: str
    layer: int
    head: int | None
    dy: float
    dx: float
    value: float | None


@dataclass(frozen=True, eq=False)
class TokenPanel:
    """Maps of all layers and heads."""

    name: str
    spatial: Floats  # (layer, head, y, x): values of the grid's tokens
    # (layer, head, 2): values of CLS, and of all registers together; None where all of the
    # attention is on the grid.
    shares: Floats | None
    n_tokens: int  # number of tokens that attention is shared among

    @property
    def times_uniform(self) -> Floats:
        """The maps as multiples of what each token has where attention is uniform."""
        return self.spatial * self.n_tokens


def token_panels(maps: AttentionMaps, ending: str = "") -> list[TokenPanel]:
    """Split the token maps that a model has into grid and prefix.

    `ending` follows the maps' names: nothing, or that of the deviation over classes.
    """
    tokens = maps.tokens
    panels = []
    for name, dimensions in TOKEN_MAPS.items():
        if name + ending not in maps.arrays:
            continue
        values = np.asarray(maps.arrays[name + ending], dtype=np.float64)
        if dimensions == ("y", "x"):
            panels.append(TokenPanel(name, values, None, tokens.n_spatial))
            continue
        spatial = values[..., tokens.n_prefix :].reshape(*values.shape[:2], *tokens.grid)
        on_cls = values[..., : int(tokens.has_cls)].sum(axis=-1)
        shares = np.stack([on_cls, values[..., tokens.registers].sum(axis=-1)], axis=-1)
        panels.append(
            TokenPanel(name, spatial, shares if tokens.n_prefix else None, tokens.n_tokens)
        )
    return panels


def common_limit(models: Sequence[AttentionMaps], ending: str = "") -> float:
    """Return where the common scale of models ends, in multiples of uniform attention.

    Of all values of all maps and models, :data:`COVERED` are no larger.
    """
    values = [p.times_uniform.ravel() for maps in models for p in token_panels(maps, ending)]
    held = np.concatenate([np.empty(0), *values])
    held = held[np.isfinite(held)]
    if not held.size:
        raise AnalysisError("no attention maps have values to draw: compute some first")
    return float(np.quantile(held, COVERED)) or 1.0


def own_scale(maps: AttentionMaps, model: Model) -> Figure:
    """Draw the token maps of a model, each on its own scale."""
    title = f"{model.label}: attention on each token"
    return _token_figure(maps, token_panels(maps), title, overlay.said_of_scale(overlay.PERCENTILE))


def common_scale(maps: AttentionMaps, model: Model, limit: float, n_models: int) -> Figure:
    """Draw the token maps of a model on a scale of so many, up to :func:`common_limit`."""
    shared = f" of all {n_models} models" if n_models > 1 else ""
    return _token_figure(
        maps,
        token_panels(maps),
        f"{model.label}: attention on each token, common scale",
        f"In multiples of uniform attention; the scale ends at {limit:.3g}, above which are "
        f"{ABOVE} of the values{shared}.",
        limit,
    )


def class_deviation(maps: AttentionMaps, model: Model) -> Figure:
    """Draw how much the token maps differ between classes; without two the figure says so."""
    panels = token_panels(maps, CLASS_DEVIATION)
    title = f"{model.label}: deviation of token maps over classes"
    if not panels:
        return empty_figure(
            title=title,
            note=f"{_source(maps)}.",
            reason="The images have fewer than two classes: there is no deviation.",
        )
    limit = common_limit([maps], CLASS_DEVIATION)
    return _token_figure(
        maps,
        [replace(panel, shares=None) for panel in panels],
        title,
        f"Standard deviation of the means of {len(maps.classes):,} classes (ddof 1), "
        "in multiples of uniform attention; the scale ends "
        f"at {limit:.3g}, above which are {ABOVE} of the values.",
        limit,
        "deviation",
    )


def _token_figure(
    maps: AttentionMaps,
    panels: Sequence[TokenPanel],
    title: str,
    note: str,
    limit: float | None = None,
    what: str = "attention",
) -> Figure:
    """Draw maps up to a limit in multiples of uniform attention, or each up to a percentile."""
    if not panels:
        raise AnalysisError(
            f"no token maps of {maps.model} on {maps.dataset}: compute them (vitfeat run attention)"
        )
    tokens = maps.tokens
    prefix = " and ".join(["CLS"] * tokens.has_cls + ["registers"] * bool(tokens.n_registers))
    bars = any(panel.shares is not None for panel in panels)
    layers, heads, *_ = panels[0].spatial.shape
    across, pixels = arranged(len(panels), (layers, heads), tokens.grid, bars=bars)
    no_bar = np.full((layers, heads, 2), np.nan)
    shown = []
    for panel in panels:
        if limit is None:
            ends = overlay.ends(panel.spatial, overlay.PERCENTILE)
            drawn = overlay.scaled(panel.spatial, ends)
        else:
            drawn = panel.times_uniform / limit
        shares = no_bar if panel.shares is None else panel.shares
        name, detail = TITLES[panel.name]
        if panel.name == RENORMALISED and prefix:
            detail = f"without {prefix}: {detail}"
        named = {"label": panel.name, "title": name, "detail": detail}
        shown.append(mosaic(drawn, pixels, shares if bars else None, **named))
    legend = overlay.share_handles(tokens.has_cls, tokens.n_registers) if bars else []
    remarks = []
    if bars:
        remarks.append(
            f"Bar below a map: share of attention that is on {prefix}; its whole width is 1."
        )
    if not tokens.has_cls:
        remarks.append("The model has no CLS token: no map of its attention.")
    if RENORMALISED in {panel.name for panel in panels}:
        remarks.append(f"Renormalised: queries that attend to no spatial token {_nulls(maps)}.")
    with style.settings():
        return sheet_of(
            shown,
            across,
            maps.layers,
            scale=what if limit is None else f"{what},\n× uniform",
            end=overlay.named(overlay.PERCENTILE) if limit is None else limit,
            beyond=True,
            title=title,
            note=f"{_source(maps)}. {note}",
            legend=legend,
            remarks=remarks,
        )[0].figure


def _source(maps: AttentionMaps) -> str:
    return f"{maps.dataset}, mean over {plural(maps.n_images, 'image')}"


def _nulls(maps: AttentionMaps) -> str:
    return "count as zero" if maps.null_rows == "zero" else "are left out"


def token_rows(maps: AttentionMaps, ending: str = "") -> Iterator[TokenRow]:
    """Return the values of the token maps with that ending as rows of a table."""
    tokens = maps.tokens
    names = [name for name in TOKEN_MAPS if name + ending in maps.arrays]
    grid = [("spatial", y, x) for y, x in np.ndindex(tokens.grid)]
    prefix = ["cls"] * tokens.has_cls + [f"register_{n}" for n in range(tokens.n_registers)]
    for name, layer, head, flat in _by_head(maps, names, ending):
        every = [*((name, None, None) for name in prefix), *grid]
        places = grid if TOKEN_MAPS[name] == ("y", "x") else every
        for place, value in zip(places, flat, strict=True):
            yield TokenRow(maps.dataset, maps.model, name, layer, head, *place, value)


def _by_head(
    maps: AttentionMaps, names: Sequence[str], ending: str = ""
) -> Iterator[tuple[str, int, int | None, list[float]]]:
    """Give the flat values of each map, layer and head.

    Of more than :data:`MAX_ROWS`, of each layer's mean over the heads that have a map.
    """
    whole = sum(maps.arrays[name + ending].size for name in names) <= MAX_ROWS
    for name in names:
        values = np.asarray(maps.arrays[name + ending], dtype=np.float64)
        flat = values.reshape(*values.shape[:2], -1)
        for layer, heads in zip(maps.layers, flat, strict=True):
            held = heads[np.isfinite(heads).all(axis=-1)]
            mean = held.mean(axis=0) if len(held) else heads[0]
            for head, given in enumerate(heads if whole else [mean]):
                # float32 has seven digits; more are noise in a table.
                written = [float(f"{value:.7g}") for value in given]
                yield name, layer, head if whole else None, written


def mean_offsets(maps: AttentionMaps) -> Floats:
    r"""Return the mean offset of each head, (layer, head, 2): dy and dx, in patches.

    .. math:: \sum_{dy, dx} \mathrm{aligned}_{h, dy, dx} \, (dy, dx)

    It is linear in the attention: that of mean maps is the mean of the images' offsets.
    """
    aligned = np.asarray(maps.arrays["aligned"], dtype=np.float64)
    parts = offsets(maps.tokens.grid)
    return np.stack([(aligned * part).sum(axis=(-2, -1)) for part in parts], axis=-1)


def aligned_levels(name: str, maps: AttentionMaps) -> Floats:
    """Return aligned maps, each divided by its own maximum, as colours show them.

    By coverage, the maximum is over offsets that :data:`WELL_COVERED` of all queries have a key
    at, and what is larger beyond them is cut off.
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
    """
    names = [name for name in OFFSET_MAPS if name in maps.arrays]
    if not names:
        raise AnalysisError(
            f"no aligned maps of {maps.model} on {maps.dataset}: compute them (vitfeat run "
            "attention)"
        )
    drawn = {name: aligned_levels(name, maps) for name in names}
    layers, heads, *size = drawn[names[0]].shape
    across, pixels = arranged(len(names), (layers, heads), (size[0], size[1]), bars=False)
    shown = [
        mosaic(drawn[name], pixels, label=name, title=TITLES[name][0], detail=TITLES[name][1])
        for name in names
    ]
    rows, columns = maps.tokens.grid
    remarks = [
        "Rows are renormalised over the grid; queries that attend to no spatial token "
        f"{_nulls(maps)}."
    ]
    if "aligned_by_coverage" in names:
        remarks.append(
            "By coverage, the maximum is over offsets that a tenth of the queries have a key at; "
            "larger values beyond them have the colour of the maximum."
        )
    line = Line2D([], [], color=overlay.MARK_COLOUR, marker="o", ms=2.2, lw=0.9)
    line.set_label("mean offset from query")
    with style.settings():
        sheet, axes = sheet_of(
            shown,
            across,
            maps.layers,
            scale="attention",
            end="own maximum",
            beyond=False,
            title=f"{model.label}: attention by offset from the query",
            note=f"{_source(maps)} and spatial queries. Each map has its query in the middle and "
            f"reaches {rows - 1} patches up and down, {columns - 1} left and right; from 0 to its "
            "own maximum.",
            legend=[line],
            remarks=remarks,
        )
        for one, ax in zip(shown, axes, strict=True):
            _queries(ax, one, (layers, heads))
            if one.label == "aligned":
                _offsets(ax, one, mean_offsets(maps))
    return sheet.figure


def _queries(ax: Axes, drawn: Mosaic, shape: tuple[int, int]) -> None:
    """Point at the middle of each map, from the gaps around it."""
    high, wide = (n * drawn.scale for n in drawn.grid)
    lines = []
    for layer, head in np.ndindex(*shape):
        x, y = drawn.place(layer, head, (drawn.grid[0] - 1) / 2, (drawn.grid[1] - 1) / 2)
        for side in (-1, 1):
            edge_y, edge_x = y + side * high / 2, x + side * wide / 2
            lines.append([(x, edge_y), (x, edge_y - side * high / 10)])
            lines.append([(edge_x, y), (edge_x - side * wide / 10, y)])
    marks = LineCollection(lines, colors="white", lw=0.5, label="queries")
    ax.add_collection(marks, autolim=False)


def _offsets(ax: Axes, drawn: Mosaic, means: Floats) -> None:
    middle = np.subtract(drawn.grid, 1) / 2
    lines = []
    for layer, head in np.argwhere(np.isfinite(means).all(axis=-1)):
        start = drawn.place(layer, head, *middle)
        lines.append([start, drawn.place(layer, head, *(middle + means[layer, head]))])
    arrows = LineCollection(lines, colors=overlay.MARK_COLOUR, lw=0.9, label="offsets")
    ax.add_collection(arrows, autolim=False)
    ends = np.reshape([line[1] for line in lines], (-1, 2))
    ax.plot(*ends.T, ls="none", marker="o", ms=1.4, mew=0, color=overlay.MARK_COLOUR)


def offset_rows(maps: AttentionMaps) -> Iterator[OffsetRow]:
    """Return the values of the aligned maps, and the mean offsets, as rows of a table."""
    names = [name for name in OFFSET_MAPS if name in maps.arrays]
    down, right = (part.ravel().tolist() for part in offsets(maps.tokens.grid))
    places = [(dy, dx) for dy in down for dx in right]
    for name, layer, head, flat in _by_head(maps, names):
        for (dy, dx), value in zip(places, flat, strict=True):
            yield OffsetRow(maps.dataset, maps.model, name, layer, head, dy, dx, value)
    for layer, heads in zip(maps.layers, mean_offsets(maps).tolist(), strict=True):
        for head, offset in enumerate(heads):
            dy, dx = (float(f"{part:.7g}") for part in offset)
            yield OffsetRow(maps.dataset, maps.model, MEAN_OFFSET, layer, head, dy, dx, None)
