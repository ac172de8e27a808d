"""Attention maps of one image in grids: positions by layers, heads by positions or by layers."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.attention_maps.compute import Maps, Position, query_maps, rollout_maps, stack
from vitfeat.errors import AnalysisError
from vitfeat.text import nearest

KINDS = ("position_layer", "head_position", "head_layer")
"""Grids, named by what goes down and what goes across."""

ROLLOUT = Position("rollout")
"""Stands for the attention rollout of the CLS token, up to each layer."""


@dataclass(frozen=True)
class ImageMaps:
    """All maps of one image.

    Attributes
    ----------
    image
        Its id.
    tokens
        How the model's tokens are ordered.
    layers
        Numbers of the layers, from 0.
    positions
        The queries.
    maps
        (layer, head, position).
    rollout
        (layer,): rollout of the CLS token up to each layer; None where it cannot be computed.
    renormalised
        Whether rows were divided by what they give to spatial keys.
    """

    image: str
    tokens: Tokens
    layers: tuple[int, ...]
    positions: tuple[Position, ...]
    maps: Maps
    rollout: Maps | None = None
    renormalised: bool = False

    @property
    def n_heads(self) -> int:
        """Number of heads of a layer."""
        return int(self.maps.on_cls.shape[1])


def image_maps(
    image: str,
    read: Callable[[int], NDArray[Any]],
    layers: Sequence[int],
    tokens: Tokens,
    chosen: Sequence[Position],
    *,
    renormalised: bool = False,
) -> ImageMaps:
    """Take all maps of an image, a layer at a time.

    The rollout is there when the model has a CLS token and no layer from the first on is left out.

    Parameters
    ----------
    image
        Its id.
    read
        Gives the attention (head, query, key) of the layer that stands at a place among `layers`.
    layers
        Numbers of the layers.
    tokens
        How the tokens are ordered.
    chosen
        The queries.
    renormalised
        As in :func:`vitfeat.analyses.attention_maps.compute.query_maps`.

    Raises
    ------
    AnalysisError
        The attention is not one after the softmax of these tokens.
    """
    rolls = tokens.has_cls and list(layers) == list(range(len(layers)))
    parts, means = [], []
    for place in range(len(layers)):
        attention = read(place)
        parts.append(query_maps(attention, chosen, tokens, renormalised=renormalised))
        if rolls:
            means.append(attention.mean(0, keepdims=True, dtype=np.float64))
    return ImageMaps(
        image=image,
        tokens=tokens,
        layers=tuple(layers),
        positions=tuple(chosen),
        maps=stack(parts),
        rollout=rollout_maps(np.stack(means), tokens) if rolls else None,
        renormalised=renormalised,
    )


class Cell(NamedTuple):
    """Which map stands in a cell; head None is the mean over heads."""

    layer: int
    head: int | None
    position: Position


@dataclass(frozen=True)
class Grid:
    """Maps in rows and columns.

    Attributes
    ----------
    kind
        Out of :data:`KINDS`.
    image
        Id of the image.
    tokens
        How the model's tokens are ordered.
    cells
        Row by row, which map it is.
    maps
        (row, column).
    renormalised
        As in :class:`ImageMaps`.
    n_layers
        How many layers there are, of which the grid may have some.
    """

    kind: str
    image: str
    tokens: Tokens
    cells: tuple[tuple[Cell, ...], ...]
    maps: Maps
    renormalised: bool = False
    n_layers: int = 0

    def of_layers(self, numbers: Container[int]) -> Grid:
        """Return the grid with the columns of some layers alone, where columns are layers."""
        if self.kind == "head_position":
            return self
        kept = [at for at, cell in enumerate(self.cells[0]) if cell.layer in numbers]
        cells = tuple(tuple(line[at] for at in kept) for line in self.cells)
        return replace(self, cells=cells, maps=self.maps[:, kept])


@dataclass(frozen=True)
class Choice:
    """What a grid shows of the dimension that it has no rows or columns for.

    Attributes
    ----------
    layer
        Number of the layer of ``head_position``; None for the last.
    head
        Head of ``position_layer``, from 0; None for the mean over heads.
    position
        Name of the query of ``head_layer``; of a model without CLS token ``mean`` stands in for
        ``cls``, and for a name that is not among the positions the first of them.
    """

    layer: int | None = None
    head: int | None = None
    position: str = "cls"


def grid(kind: str, maps: ImageMaps, choice: Choice) -> Grid:
    """Lay out the maps of an image.

    ``position_layer`` has a row for every position, and one for the rollout where heads are
    averaged and there is one; ``head_position`` and ``head_layer`` have a row for the mean over
    heads above those of the heads.

    Raises
    ------
    AnalysisError
        The kind is unknown, or the layer or head is not there.
    """
    if kind not in KINDS:
        raise AnalysisError(
            f"unknown grid {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}"
        )
    heads = [None, *range(maps.n_heads)]
    every = range(len(maps.positions))
    if kind == "position_layer":
        head = _head(maps, choice.head)
        rows = [[Cell(n, head, position) for n in maps.layers] for position in maps.positions]
        found = [_line(maps, [(layer, head, p) for layer in _all(maps)]) for p in every]
        if head is None and maps.rollout is not None:
            rows.append([Cell(n, None, ROLLOUT) for n in maps.layers])
            found.append(maps.rollout)
    elif kind == "head_position":
        number = maps.layers[-1] if choice.layer is None else choice.layer
        if number not in maps.layers:
            raise AnalysisError(
                f"layer {number} is not there: there are {', '.join(map(str, maps.layers))}"
            )
        layer = maps.layers.index(number)
        rows = [[Cell(number, head, position) for position in maps.positions] for head in heads]
        found = [_line(maps, [(layer, head, p) for p in every]) for head in heads]
    else:
        p = _position(maps, choice.position)
        rows = [[Cell(n, head, maps.positions[p]) for n in maps.layers] for head in heads]
        found = [_line(maps, [(layer, head, p) for layer in _all(maps)]) for head in heads]
    cells = tuple(map(tuple, rows))
    return Grid(
        kind, maps.image, maps.tokens, cells, stack(found), maps.renormalised, len(maps.layers)
    )


def _all(maps: ImageMaps) -> range:
    return range(len(maps.layers))


def _head(maps: ImageMaps, head: int | None) -> int | None:
    if head is not None and not 0 <= head < maps.n_heads:
        raise AnalysisError(
            f"head {head} is not there: the model has {maps.n_heads}, 0 to {maps.n_heads - 1}"
        )
    return head


def _position(maps: ImageMaps, name: str) -> int:
    names = [position.name for position in maps.positions]
    for wanted in (name, "mean" if name == "cls" else name):
        if wanted in names:
            return names.index(wanted)
    return 0


def _line(maps: ImageMaps, places: Sequence[tuple[int, int | None, int]]) -> Maps:
    """Return (column,) of places (layer, head or mean over heads, position)."""
    return stack([one_map(maps, *place) for place in places])


def one_map(maps: ImageMaps, layer: int, head: int | None, position: int) -> Maps:
    """Return a single map; the mean over heads for head None.

    Parameters
    ----------
    maps
        Of an image.
    layer, head, position
        Where they stand among its layers, heads and positions.
    """
    if head is None:
        return maps.maps[layer, :, position].mean(0)
    return maps.maps[layer, head, position]


class AttentionMapRow(NamedTuple):
    """One number of a figure of attention maps.

    ``head`` is empty for the mean over heads. ``key`` is ``spatial`` (``spatial_renormalised``
    where rows are) with the key's ``row`` and ``column`` on the grid from 0, ``cls``, or
    ``registers`` (all together). ``attention`` is the query's share, rounded to 8 digits.
    """

    image: str
    layer: int
    head: int | None
    position: str
    key: str
    row: int | None
    column: int | None
    attention: float


def table(one: Grid) -> Iterator[AttentionMapRow]:
    """Yield the numbers of a grid: map by map, key by key."""
    kind = "spatial_renormalised" if one.renormalised else "spatial"
    for r, line in enumerate(one.cells):
        for c, (layer, head, position) in enumerate(line):
            found, start = one.maps[r, c], (one.image, layer, head, position.name)
            spatial = "spatial" if position is ROLLOUT else kind
            if one.tokens.has_cls:
                yield AttentionMapRow(*start, "cls", None, None, _rounded(found.on_cls))
            if one.tokens.n_registers:
                yield AttentionMapRow(*start, "registers", None, None, _rounded(found.on_registers))
            for y, values in enumerate(found.spatial.tolist()):
                for x, value in enumerate(values):
                    yield AttentionMapRow(*start, spatial, y, x, _rounded(value))


def _rounded(value: object) -> float:
    return float(f"{value:.8g}")
