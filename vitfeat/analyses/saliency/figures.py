"""What heads attend to most, over the picture that the model saw, beside the annotated objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from vitfeat.analyses.saliency import SCORING
from vitfeat.errors import AnalysisError
from vitfeat.figures import overlay, style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.sheet import Sheet, Space, above, bare, empty_figure

Bool = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

QUERY_NAMES = {query: SCORING.kinds[f"attn_{query}"] for query in ("cls", "mean", "centre")}

CELL = 0.92
"""Side of a picture in inches."""

KEPT = 0.5
"""Place of kept tokens in the colours of attention."""

HEADING, CAPTION, BELOW, APART, PAIRS_APART = 0.32, 0.17, 0.16, 0.05, 0.16


@dataclass(frozen=True)
class Kept:
    """The tokens that a query keeps, bool (Y, X), their IoU with the foreground, and by chance.

    ``query`` is ``cls``, ``mean`` or ``centre``; ``head`` is None for all merged.
    """

    query: str
    head: int | None
    tokens: Bool
    iou: float
    chance: float


@dataclass(frozen=True)
class SalientImage:
    """One image and what is kept of it, of the same queries and heads in every image."""

    image: str
    caption: str
    picture: Pixels  # uint8 (height, width, 3): what the model saw, before normalisation
    mask: Bool  # bool (height, width): the annotated objects in it
    foreground: Bool  # bool (Y, X): the tokens that count as theirs
    kept: tuple[Kept, ...]


class MaskRow(NamedTuple):
    """What a query keeps of an image; ``head`` is None for all merged."""

    image_id: str
    layer: int
    query: str
    head: int | None
    n_kept: int
    n_foreground: int
    iou: float
    iou_chance: float


def table(images: Sequence[SalientImage], layer: int) -> Iterator[MaskRow]:
    """Return the numbers of a figure."""
    for one in images:
        n_foreground = int(one.foreground.sum())
        for kept in one.kept:
            n_kept = int(kept.tokens.sum())
            whose = one.image, layer, kept.query, kept.head
            yield MaskRow(*whose, n_kept, n_foreground, kept.iou, kept.chance)


@style.settings()
def figure(
    images: Sequence[SalientImage], *, title: str, note: str, mass: float, paper: bool = False
) -> Figure:
    """Draw images below one another: the picture, and what every query keeps beside it.

    ``mass`` is the share of the attention to the grid that the kept tokens have; with ``paper`` the
    foreground is the research code's.
    """
    if not images or not images[0].kept:
        raise AnalysisError("a figure of kept tokens needs an image and a query")
    crop = images[0].picture.shape[:2]
    grid = images[0].foreground.shape
    size = overlay.drawn_size((crop[0], crop[1]), (grid[0], grid[1]), CELL * style.DPI)
    height, width = (side / style.DPI for side in size)
    kept = images[0].kept
    # Texts may be wider than narrow pictures, of which those below stand in the middle.
    room = max(text_width(_head_name(one), style.SMALL_SIZE) for one in kept) + APART - width
    below = (text_width(_share(1.0), style.SMALL_SIZE) - width) / 2
    columns = [Space(max(0.02, below), width, max(PAIRS_APART, below + PAIRS_APART))]
    for index, one in enumerate(kept):
        pair_goes_on = index + 1 < len(kept) and kept[index + 1].query == one.query
        columns.append(Space(0, width, max(APART if pair_goes_on else PAIRS_APART, room)))
    inner = sum(column.whole for column in columns)
    rows = [
        Space(CAPTION + (0 if index else HEADING), height, BELOW + 0.05)
        for index in range(len(images))
    ]
    sheet = Sheet(
        rows,
        columns,
        title=_title(title),
        note=note,
        legend=_legend(mass),
        remarks=_remarks(paper),
    )
    for row, shown in enumerate(images):
        ax = sheet.axes(row, 0)
        _show(ax, _picture(shown, size), shown.image)
        above(ax, _fitting(shown.caption, inner), 3, weight="bold")
        _below(ax, _share(float(shown.foreground.mean())))
        for column, some in enumerate(shown.kept, start=1):
            ax = sheet.axes(row, column)
            _show(ax, _tokens(shown, some, size), f"{shown.image} {some.query} {some.head}")
            _below(ax, f"IoU {some.iou:.2f} ({some.chance:.2f})")
            if row == 0:
                _head_above(ax, some, first=column == 1 or kept[column - 2].query != some.query)
    return sheet.figure


def nothing_figure(*, title: str, note: str) -> Figure:
    """Draw a sheet that says that the model has none of the queries."""
    return empty_figure(
        title=_title(title),
        note=note,
        reason="The model has no CLS token, and no other query is asked for.",
    )


def _title(model: str) -> str:
    return f"{SCORING.title}: {model}"


def _show(ax: Axes, pixels: Pixels, label: str) -> None:
    ax.imshow(pixels, aspect="auto")
    bare(ax, label)


def _below(ax: Axes, text: str) -> None:
    ax.set_xlabel(text, labelpad=3, size=style.SMALL_SIZE)


def _head_above(ax: Axes, some: Kept, *, first: bool) -> None:
    up = CAPTION * 72 + 2
    above(ax, _head_name(some), up)
    if first:
        above(ax, QUERY_NAMES[some.query], up + 9, weight="bold")


def _head_name(some: Kept) -> str:
    return "heads merged" if some.head is None else f"best head: {some.head}"


def _share(foreground: float) -> str:
    return f"object tokens: {foreground:.0%}"


def _fitting(caption: str, width: float) -> str:
    while text_width(caption, style.SMALL_SIZE, "bold") > width:
        caption = f"…{caption[2:]}"
    return caption


def _picture(one: SalientImage, size: tuple[int, int]) -> Pixels:
    """Draw the picture with the outline of the objects."""
    drawn = overlay.resized(one.picture, size).copy()
    rows, columns = (
        np.minimum((np.arange(side) + 0.5) * of / side, of - 1).astype(np.int64)
        for side, of in zip(size, one.mask.shape, strict=True)
    )
    _outline(drawn, one.mask[rows[:, None], columns])
    return drawn


def _tokens(one: SalientImage, some: Kept, size: tuple[int, int]) -> Pixels:
    """Draw the kept tokens with the outline of the foreground's."""
    crop = (one.picture.shape[0], one.picture.shape[1])
    picture = overlay.resized(one.picture, size)
    grid = (one.foreground.shape[0], one.foreground.shape[1])
    patches = overlay.Patches(grid, crop, size)
    rows, columns = patches.tokens(0)[:, None], patches.tokens(1)
    shown = (rows >= 0) & (columns >= 0)
    drawn = overlay.pale(picture)
    kept = shown & some.tokens[rows, columns]
    drawn[kept] = overlay.overlay(picture, np.full(grid, KEPT), crop)[kept]
    _outline(drawn, shown & one.foreground[rows, columns])
    return drawn


def _outline(picture: Pixels, inside: Bool) -> None:
    """Draw the outline of what is inside, into the picture itself; open at its edges."""
    width = max(1, round(max(picture.shape) / 110))
    square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.bool_)
    # A dark line outside of the light one, so that it is seen on any picture.
    picture[binary_dilation(inside, square) & ~inside] = 0
    edge = inside & ~binary_erosion(inside, square, border_value=1)
    picture[edge] = np.rint(np.asarray(to_rgb(overlay.MARK_COLOUR)) * 255)


def _legend(mass: float) -> list[Patch]:
    return [
        Patch(
            facecolor=to_hex(overlay.colours()(KEPT)),
            label=f"most attended tokens: {mass:.0%} of the attention to the grid",
        ),
        Patch(facecolor="none", edgecolor=overlay.MARK_COLOUR, lw=1.4, label="annotated objects"),
    ]


def _remarks(paper: bool) -> list[str]:
    inside = (
        "that the research code counts as theirs" if paper else "that at least half lie under them"
    )
    return [
        f"Outlines: in the picture the objects themselves, elsewhere the tokens {inside}, the "
        "object tokens. IoU: of these with the most attended tokens; in brackets by chance, of as "
        "many tokens drawn at random.",
        "Best head: the one with the highest IoU on average over the images of the dataset.",
    ]
