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

KINDS = ("position_layer", "head_position", "head_layer")
"""Grids, named by what goes down and what goes across."""

ROLLOUT = Position("rollout")
"""Stands for the attention rollout of the CLS token, up to each layer."""


@dataclass(frozen=True)
class ImageMaps:
    """All maps of one image."""

    # image, caption: its id, and what stands above it in figures
    image: str
    caption: str
    # uint8 (height, width, 3): the crop that the model saw, before normalisation.
    picture: NDArray[np.uint8]
    tokens: Tokens
    layers: tuple[int, ...]
    positions: tuple[Position, ...]
    maps: Maps  # (layer, 1 + head, position), the mean over heads first
    # (layer,): rollout of the CLS token up to each layer; None where it cannot be computed.
    rollout: Maps | None = None
    renormalised: bool = False  # whether rows were divided by what they give to spatial keys

    @property
    def heads(self) -> list[int | None]:
        """Numbers of the heads, after None for their mean."""
        return [None, *range(self.maps.on_cls.shape[1] - 1)]

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        return self.picture.shape[0], self.picture.shape[1]


def image_maps(
    image: str,
    read: Callable[[int], NDArray[Any]],
    layers: Sequence[int],
    tokens: Tokens,
    chosen: Sequence[Position],
    *,
    picture: NDArray[np.uint8],
    caption: str = "",
    renormalised: bool = False,
) -> ImageMaps:
    """Take all maps of an image, a layer at a time; arguments are the fields of the result.

    The rollout is there when the model has a CLS token and no layer from the first on is left out.

    `read` gives the attention (head, query, key) of the layer that stands at a place among
    `layers`.
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
        caption=caption,
        picture=picture,
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
    """Maps in rows and columns."""

    kind: str  # out of :data:`KINDS`
    of: ImageMaps  # the image, with all its maps
    cells: tuple[tuple[Cell, ...], ...]  # row by row, which map it is
    maps: Maps  # (row, column)

    def of_layers(self, numbers: Container[int]) -> Grid:
        """Return the grid with the columns of some layers alone, where columns are layers."""
        if self.kind == "head_position":
            return self
        kept = [at for at, cell in enumerate(self.cells[0]) if cell.layer in numbers]
        cells = tuple(tuple(line[at] for at in kept) for line in self.cells)
        return replace(self, cells=cells, maps=self.maps[:, kept])


def grid(
    kind: str,
    maps: ImageMaps,
    *,
    layer: int | None = None,
    head: int | None = None,
    position: str = "cls",
) -> Grid:
    """Lay out the maps of an image.

    ``position_layer`` has a row for every position, and one for the rollout where heads are
    averaged and there is one; ``head_position`` and ``head_layer`` have a row for the mean over
    heads above those of the heads.

    Parameters
    ----------
    layer
        Number of the layer of ``head_position``; None for the last.
    head
        Head of ``position_layer``, from 0; None for the mean over heads.
    position
        Name of the query of ``head_layer``; of a model without CLS token ``mean`` stands in for
        ``cls``, and for a name that is not among the positions the first of them.
    """
    if head not in maps.heads:
        count = len(maps.heads) - 1
        raise AnalysisError(f"head {head} is not there: the model has {count}, 0 to {count - 1}")
    at_layer = -1 if layer is None else maps.layers.index(layer)
    at_head, at_position = maps.heads.index(head), _place_of(maps, position)
    layers, heads = range(len(maps.layers)), range(len(maps.heads))
    places = range(len(maps.positions))
    if kind == "position_layer":
        chosen = [[(n, at_head, place) for n in layers] for place in places]
    elif kind == "head_position":
        chosen = [[(at_layer, h, place) for place in places] for h in heads]
    else:
        chosen = [[(n, h, at_position) for n in layers] for h in heads]
    cells = [
        tuple(Cell(maps.layers[n], maps.heads[h], maps.positions[place]) for n, h, place in line)
        for line in chosen
    ]
    laid = maps.maps[tuple(np.moveaxis(np.array(chosen), -1, 0))]
    if kind == "position_layer" and head is None and maps.rollout is not None:
        cells.append(tuple(Cell(n, None, ROLLOUT) for n in maps.layers))
        laid = stack([*(laid[row] for row in range(len(chosen))), maps.rollout])
    return Grid(kind, maps, tuple(cells), laid)


def _place_of(maps: ImageMaps, position: str) -> int:
    names = [place.name for place in maps.positions]
    for wanted in (position, "mean" if position == "cls" else position):
        if wanted in names:
            return names.index(wanted)
    return 0


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


def table(grid: Grid) -> Iterator[AttentionMapRow]:
    """Yield the numbers of a grid: map by map, key by key."""
    tokens = grid.of.tokens
    for r, c in np.ndindex(grid.maps.on_cls.shape):
        layer, head, position = grid.cells[r][c]
        start = grid.of.image, layer, head, position.name
        if tokens.has_cls:
            yield AttentionMapRow(*start, "cls", None, None, _rounded(grid.maps.on_cls[r, c]))
        if tokens.n_registers:
            on_registers = _rounded(grid.maps.on_registers[r, c])
            yield AttentionMapRow(*start, "registers", None, None, on_registers)
        renormalised = grid.of.renormalised and position is not ROLLOUT
        kind = "spatial_renormalised" if renormalised else "spatial"
        for y, values in enumerate(grid.maps.spatial[r, c].tolist()):
            for x, value in enumerate(values):
                yield AttentionMapRow(*start, kind, y, x, _rounded(value))


def _rounded(value: object) -> float:
    return float(f"{value:.8g}")
