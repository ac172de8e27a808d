"""Figure of CKA with confidence intervals: pairs of models, the most alike first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from vitfeat.analyses.rows import SimilarityRow
from vitfeat.analyses.similarity.cka_panels import Panels, say_instead
from vitfeat.analyses.similarity.compared import Compared, DrawnSimilarity
from vitfeat.figures import style
from vitfeat.figures.fonts import text_width
from vitfeat.figures.looks import family_title
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import Space

MOST = 66
"""Pairs with a line of text each; more are put together by family."""

LINE, THIN, BETWEEN = 0.125, 0.03, 0.05
"""Inches of a line of text, of a pair among those of two families, and between families."""

WIDTH, DOTS = 1.8, 0.2
"""Of a panel, and of the families' squares left of it, in inches."""

INK, BAR, RULE = "#1A1A1A", "#8FB0D6", "#E2E2E2"


class Pair(NamedTuple):
    """Two models and their similarity."""

    a: Model
    b: Model
    row: SimilarityRow


@dataclass(frozen=True)
class Group:
    """Pairs that share a line of text: one, or all of two families, the most alike first."""

    label: str
    families: tuple[str, str]
    pairs: Sequence[Pair]

    @property
    def height(self) -> float:
        """Inches that the group takes."""
        if len(self.pairs) == 1:
            return LINE
        return max(LINE, THIN * len(self.pairs)) + BETWEEN


def pairs(block: Compared, models: Sequence[Model]) -> list[Pair]:
    """Return pairs of different models that have a value, the most alike first."""
    held = [
        Pair(a, b, row)
        for a, b in combinations(models, 2)
        if (row := block.row(a.id, b.id)) is not None and np.isfinite(row.value)
    ]
    return sorted(held, key=lambda pair: -pair.row.value)


def groups(block: Compared, models: Sequence[Model], *, by_family: bool) -> list[Group]:
    """Return what stands in a panel from the top down.

    By pair, or by pair of families in the order of their median.
    """
    every = pairs(block, models)
    if not by_family:
        return [
            Group(f"{pair.a.label} – {pair.b.label}", (pair.a.family, pair.b.family), [pair])
            for pair in every
        ]
    families = list(dict.fromkeys(model.family for model in models))
    titles = {f: family_title([m for m in models if m.family == f]) for f in families}
    held: defaultdict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in every:
        first, second = sorted((pair.a.family, pair.b.family), key=families.index)
        held[first, second].append(pair)
    made = [Group(f"{titles[a]} – {titles[b]}", (a, b), some) for (a, b), some in held.items()]
    return sorted(made, key=lambda group: -float(np.median([p.row.value for p in group.pairs])))


def interval_rows(blocks: Sequence[Compared], models: Sequence[Model]) -> Iterator[DrawnSimilarity]:
    """Return what :func:`intervals` draws, as rows of a table from the top down."""
    by_family = _many(blocks, models)
    for block in blocks:
        for group in groups(block, models, by_family=by_family):
            for a, b, _ in group.pairs:
                yield from (row for row in block.drawn((a.id, b.id)) if row.model_a != row.model_b)


def intervals(
    blocks: Sequence[Compared],
    models: Sequence[Model],
    left_out: Collection[str] = (),
    printed: str = "",
) -> Figure:
    """Draw a value and its interval for each pair of models, by block of CKA.

    Up to :data:`MOST` pairs have their names; more are put together by their families.
    """
    panels = Panels.of(blocks, models, left_out)
    by_family = _many(blocks, models)
    drawn = [groups(block, panels.models, by_family=by_family) for block in blocks]
    every = [group for some in drawn for group in some]
    label = max((text_width(group.label, style.SMALL_SIZE) for group in every), default=0.6)
    height = max(2 * LINE, *(sum(group.height for group in some) for some in drawn))
    ends = [(r.low, r.high, r.value) for group in every for _, _, r in group.pairs]
    low = float(np.nanmin(ends)) if ends else 0.0
    what = "no intervals"
    if ends and np.isfinite(np.array(ends)[:, :2]).any():
        share = every[0].pairs[0].row.confidence
        what = f"bars: {100 * share:.4g} % confidence intervals over images"
        what += f" ({printed})" if printed else ""
    together = ", all pairs of two families together" if by_family else ""
    legend = [
        Line2D([], [], ls="none", marker="s", ms=4, color=style.family_colour(name), label=name)
        for name in dict.fromkeys(model.family for model in models)
    ]
    with style.settings():
        figure, axes = panels.sheet(
            (height, 0.4),
            Space(label + DOTS + 0.04, WIDTH, 0.2),
            title="CKA of last layers, pair by pair",
            note=f"linear CKA, debiased; {what}{together}",
            legend=legend,
        )
        for ax, some in zip(axes, drawn, strict=True):
            ax.set_xlim(np.floor(10 * low) / 10, 1)
            ax.set_ylim(height, 0)
            _draw(ax, some)
    return figure


def _many(blocks: Sequence[Compared], models: Sequence[Model]) -> bool:
    return any(len(pairs(block, models)) > MOST for block in blocks)


def _draw(ax: Axes, some: Sequence[Group]) -> None:
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MultipleLocator(0.2))
    ax.set_yticks([])
    ax.grid(axis="x", color=RULE, lw=0.5)
    ax.set_axisbelow(True)
    ax.set_xlabel("CKA", size=style.SMALL_SIZE, labelpad=1.5)
    if not some:
        say_instead(ax, "no pairs")
        return
    tops = np.concatenate([[0], np.cumsum([group.height for group in some])])
    middles = (tops[:-1] + tops[1:]) / 2
    crowded = any(len(group.pairs) > 1 for group in some)
    step = THIN if crowded else LINE
    rows, places = [], []
    for group, middle in zip(some, middles, strict=True):
        count = len(group.pairs)
        rows += [pair.row for pair in group.pairs]
        places += list(middle + step * (np.arange(count) - (count - 1) / 2))
    bars = [np.array([(r.low, y), (r.high, y)]) for r, y in zip(rows, places, strict=True)]
    width = 0.8 * THIN * 72 if crowded else 3.2
    lines = LineCollection(bars, colors=BAR, lw=width, label="intervals")
    ax.add_collection(lines, autolim=False)
    values = [row.value for row in rows]
    tick = 0.9 * THIN * 72 if crowded else 5.5
    ax.plot(values, places, ls="none", marker="|", ms=tick, mew=0.9, color=INK, label="values")
    if crowded:
        across = ax.get_yaxis_transform()
        left = np.array([-DOTS / WIDTH, 1.0])
        rules = [np.column_stack([left, [top, top]]) for top in tops[1:-1]]
        ax.add_collection(
            LineCollection(rules, colors=RULE, lw=0.5, transform=across, clip_on=False),
            autolim=False,
        )
    _name(ax, some, middles)


def _name(ax: Axes, some: Sequence[Group], middles: NDArray[np.float64]) -> None:
    """Write what each line is of, with a square of each family's colour."""
    across = ax.get_yaxis_transform()
    for index, away in enumerate((DOTS - 0.05, 0.06)):
        ax.scatter(
            np.full(len(some), -away / WIDTH),
            middles,
            s=11,
            marker="s",
            c=[style.family_colour(group.families[index]) for group in some],
            linewidths=0,
            transform=across,
            clip_on=False,
        )
    for group, middle in zip(some, middles, strict=True):
        ax.text(
            -(DOTS + 0.02) / WIDTH,
            middle,
            group.label,
            transform=across,
            ha="right",
            va="center",
            size=style.SMALL_SIZE,
        )
