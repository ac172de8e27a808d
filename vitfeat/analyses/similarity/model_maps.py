"""Figure of maps of models: close together where the CKA of their last layers is high."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from vitfeat.analyses.similarity.compared import Compared
from vitfeat.analyses.similarity.dendrograms import TOO_FEW, grid_of
from vitfeat.analyses.similarity.model_space import Map, chords, plane
from vitfeat.analyses.similarity.point_labels import places_of, write_names
from vitfeat.figures import style
from vitfeat.figures.blocks import BLOCK_TITLE, head
from vitfeat.figures.cka_values import TOKEN_NAMES
from vitfeat.figures.fallbacks import marked, stand_in_remarks
from vitfeat.figures.labels import Placed
from vitfeat.figures.looks import Look, looks, point_handles
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Sheet, Space

SIDES = (2.6, 3.2, 4.0, 5.0, 6.2)
"""Sides of a panel in inches: the first one in which all names find a place."""

FAITHFUL = 0.2
"""Kruskal's stress-1 above which distances are not as drawn: "poor" (Kruskal 1964)."""

MARGIN = 0.14
"""White around the points, of their extent."""

WARNING, WARNING_COLOUR = "\N{WARNING SIGN}", "#B00020"

Points = list[tuple[float, float]]


class DrawnPlace(NamedTuple):
    """Place of a model on a map, and how faithful the map is."""

    dataset: str
    tokens: str
    n_images: int
    model: str
    x: float
    y: float
    explained_x: float
    explained_y: float
    stress: float


def model_maps(
    blocks: Sequence[Compared], models: Sequence[Model], left_out: Collection[str] = ()
) -> Figure:
    """Draw a map for each dataset (down) and token kind (across).

    Classical multidimensional scaling of the distance sqrt(2 - 2 CKA).

    Parameters
    ----------
    blocks
        CKA, at least one block.
    models
        Labels and looks.
    left_out
        As in :func:`vitfeat.analyses.similarity.measure_matrices.measure_matrices`.
    """
    stand_ins = {name for one in blocks for name in one.stand_ins}
    shown = marked(models, stand_ins)
    look = looks(shown)
    datasets, kinds = grid_of(blocks)
    drawn = {one: _map(one, shown) for one in blocks}
    # One scale for all, so that distances compare.
    reach = max(
        float(np.abs(found.places - _middle(found)).max(initial=0)) for found, _ in drawn.values()
    )
    width = 2 * reach * (1 + 2 * MARGIN) or 1.0
    for side in SIDES:
        named = {one: _named(found, held, width, side) for one, (found, held) in drawn.items()}
        if all(None not in places for _, places in named.values()):
            break
    with style.settings():
        sheet = Sheet(
            [Space(BLOCK_TITLE, side, 0.3)] * len(datasets),
            [Space(0.3, side, 0.12)] * len(kinds),
            title="Maps of models by the CKA of their last layers",
            note="classical multidimensional scaling of the distance sqrt(2 - 2 CKA), linear and "
            "debiased; one scale for all; axes: share of squared distances; stress: Kruskal's "
            "stress-1, 0 if all distances are as drawn",
            legend=point_handles(shown),
            remarks=[*_unfaithful(drawn), *stand_in_remarks(stand_ins, models, left_out)],
        )
        for one, (found, held) in drawn.items():
            ax = sheet.axes(datasets.index(one.dataset), kinds.index(one.tokens))
            ax.set_label(f"{one.dataset}/{one.tokens}")
            source = one.note.partition("; ")[2]
            head(ax, TOKEN_NAMES[one.tokens], f"{source}; stress {found.stress:.2f}")
            if found.stress > FAITHFUL:
                _warn(ax)
            _draw(ax, found, held, look, width, named[one])
    return sheet.figure


def place_rows(blocks: Sequence[Compared], models: Sequence[Model]) -> Iterator[DrawnPlace]:
    """Return the places that :func:`model_maps` draws, as rows of a table."""
    for one in blocks:
        found, held = _map(one, models)
        along, up = found.explained.tolist()
        for model, (x, y) in zip(held, found.places.tolist(), strict=True):
            yield DrawnPlace(
                one.dataset,
                one.tokens,
                one.n_images,
                model.id,
                x,
                y,
                along,
                up,
                found.stress,
            )


def _map(one: Compared, models: Sequence[Model]) -> tuple[Map, list[Model]]:
    held = one.usable(models)
    if len(held) < 2:
        return Map(np.empty((0, 2)), np.zeros(2), 0.0), []
    return plane(chords(one.matrix(held))), held


def _unfaithful(drawn: Mapping[Compared, tuple[Map, list[Model]]]) -> list[str]:
    """Say which maps should not be read, where there are some."""
    some = [one for one, (found, _) in drawn.items() if found.stress > FAITHFUL]
    if not some:
        return []
    named = ", ".join(f"{TOKEN_NAMES[one.tokens]} of {one.dataset}" for one in some)
    return [
        f"{WARNING} stress above {FAITHFUL:g}: distances are not as drawn; read the matrix of CKA "
        f"instead ({named})"
    ]


def _warn(ax: Axes) -> None:
    ax.annotate(
        f"{WARNING} not faithful",
        (1, 1),
        (0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        size=style.SMALL_SIZE,
        weight="bold",
        color=WARNING_COLOUR,
    )


def _middle(found: Map) -> NDArray[np.float64]:
    """Middle of the extent of the places."""
    if not len(found.places):
        return np.zeros(2)
    return np.asarray((found.places.min(axis=0) + found.places.max(axis=0)) / 2)


def _named(
    found: Map, models: Sequence[Model], width: float, side: float
) -> tuple[Points, list[Placed | None]]:
    """Points in inches in a panel of so many inches, and where their names stand."""
    inches = ((found.places - _middle(found)) / width + 0.5) * side
    points: Points = [(float(x), float(y)) for x, y in inches]
    return points, places_of(points, [model.label for model in models], (side, side))


def _draw(
    ax: Axes,
    found: Map,
    models: Sequence[Model],
    look: dict[str, Look],
    width: float,
    named: tuple[Points, list[Placed | None]],
) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    x, y = _middle(found)
    ax.set_xlim(x - width / 2, x + width / 2)
    ax.set_ylim(y - width / 2, y + width / 2)
    for axis, name, share in zip((ax.xaxis, ax.yaxis), "12", found.explained, strict=True):
        axis.set_major_locator(MultipleLocator(0.2 if width < 1.5 else 0.5))
        axis.set_label_text(f"axis {name}: {100 * share:.0f} %", size=style.SMALL_SIZE)
        axis.labelpad = 1
    if not models:
        ax.text(0.5, 0.5, TOO_FEW, transform=ax.transAxes, ha="center", size=style.SMALL_SIZE)
        return
    for model, place in zip(models, found.places, strict=True):
        ax.plot(*place[:, None], **look[model.id].point(), label=model.id, zorder=3)
    points, places = named
    colours = [look[model.id].colour for model in models]
    write_names(ax, points, [model.label for model in models], colours, places)
