"""Figure of maps of models: close together where the CKA of their last layers is high."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from vitfeat.analyses.similarity.cka_panels import TOO_FEW, Panels, say_instead
from vitfeat.analyses.similarity.compared import Compared
from vitfeat.analyses.similarity.model_space import Map, chords, classical_mds
from vitfeat.figures import style
from vitfeat.figures.cka_values import TOKEN_NAMES
from vitfeat.figures.labels import Placed
from vitfeat.figures.looks import Look, looks, point_handles
from vitfeat.figures.models import Model
from vitfeat.figures.point_names import places_of, write_names
from vitfeat.figures.sheet import Space

SIDES = (2.6, 3.2, 4.0, 5.0, 6.2)
"""Sides of a panel in inches: the first one in which all names find a place."""

FAITHFUL = 0.2
"""Kruskal's stress-1 above which distances are not as drawn: "poor" (Kruskal 1964)."""

MARGIN = 0.14
"""White around the points, of their extent."""

WARNING, WARNING_COLOUR = "\N{WARNING SIGN}", "#B00020"

Points = list[tuple[float, float]]
Names = tuple[Points, list[Placed | None]]
"""Of a panel, points in inches, and where their names stand."""


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
    """Draw a map for each block of CKA.

    Classical multidimensional scaling of the distance sqrt(2 - 2 CKA).
    """
    panels = Panels.of(blocks, models, left_out)
    look = looks(panels.models)
    drawn = {block: _map(block, panels.models) for block in blocks}
    # One scale for all, so that distances compare.
    reach = max(float(np.abs(m.places - _middle(m)).max(initial=0)) for m, _ in drawn.values())
    width = 2 * reach * (1 + 2 * MARGIN) or 1.0
    for side in SIDES:
        named = [_named(made, held, width, side) for made, held in drawn.values()]
        if all(None not in places for _, places in named):
            break
    lost = [block for block, (made, _) in drawn.items() if made.stress > FAITHFUL]
    warnings = []
    if lost:
        of = ", ".join(f"{TOKEN_NAMES[block.tokens]} of {block.dataset}" for block in lost)
        warnings.append(
            f"{WARNING} stress above {FAITHFUL:g}: distances are not as drawn; read the matrix of "
            f"CKA instead ({of})"
        )
    with style.settings():
        figure, axes = panels.sheet(
            (side, 0.3),
            Space(0.3, side, 0.12),
            title="Maps of models by the CKA of their last layers",
            note="classical multidimensional scaling of the distance sqrt(2 - 2 CKA), linear and "
            "debiased; one scale for all; axes: share of squared distances; stress: Kruskal's "
            "stress-1, 0 if all distances are as drawn",
            legend=point_handles(panels.models),
            warnings=warnings,
            said={block: f"; stress {made.stress:.2f}" for block, (made, _) in drawn.items()},
        )
        for ax, (block, (made, held)), names in zip(axes, drawn.items(), named, strict=True):
            if block in lost:
                _warn(ax)
            _draw(ax, made, held, look, width, names)
    return figure


def place_rows(blocks: Sequence[Compared], models: Sequence[Model]) -> Iterator[DrawnPlace]:
    """Return the places that :func:`model_maps` draws, as rows of a table."""
    for block in blocks:
        made, held = _map(block, models)
        about = block.dataset, block.tokens, block.n_images
        explained = float(made.explained[0]), float(made.explained[1]), made.stress
        for model, (x, y) in zip(held, made.places.tolist(), strict=True):
            yield DrawnPlace(*about, model.id, x, y, *explained)


def _map(block: Compared, models: Sequence[Model]) -> tuple[Map, list[Model]]:
    held = block.usable(models)
    if len(held) < 2:
        return Map(np.empty((0, 2)), np.zeros(2), 0.0), []
    return classical_mds(chords(block.matrix(held))), held


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


def _middle(made: Map) -> NDArray[np.float64]:
    if not len(made.places):
        return np.zeros(2)
    return np.asarray((made.places.min(axis=0) + made.places.max(axis=0)) / 2)


def _named(made: Map, models: Sequence[Model], width: float, side: float) -> Names:
    """Place names in a panel of so many inches, which are so wide in the map's unit."""
    inches = ((made.places - _middle(made)) / width + 0.5) * side
    points: Points = [(float(x), float(y)) for x, y in inches]
    return points, places_of(points, [model.label for model in models], (side, side))


def _draw(
    ax: Axes,
    made: Map,
    models: Sequence[Model],
    look: dict[str, Look],
    width: float,
    names: Names,
) -> None:
    x, y = _middle(made)
    ax.set_xlim(x - width / 2, x + width / 2)
    ax.set_ylim(y - width / 2, y + width / 2)
    for axis, name, share in zip((ax.xaxis, ax.yaxis), "12", made.explained, strict=True):
        axis.set_major_locator(MultipleLocator(0.2 if width < 1.5 else 0.5))
        axis.set_label_text(f"axis {name}: {100 * share:.0f} %", size=style.SMALL_SIZE)
        axis.labelpad = 1
    if not models:
        say_instead(ax, TOO_FEW)
        return
    for model, place in zip(models, made.places, strict=True):
        ax.plot(*place[:, None], **look[model.id].point(), label=model.id, zorder=3)
    points, places = names
    colours = [look[model.id].colour for model in models]
    write_names(ax, points, [model.label for model in models], colours, places)
