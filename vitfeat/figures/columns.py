"""Columns of a table that is drawn: headings over groups of them, texts, and rows of models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vitfeat.figures import style
from vitfeat.figures.labels import drawn_width, wrapped
from vitfeat.figures.models import Model
from vitfeat.figures.sheet import LINE_HEIGHT

GROUP_GAP = 0.07
"""More between columns under different headings, in inches."""

RULE = 0.06
"""Inches between a heading and the texts below it, where a line runs."""

PITCH = 0.108
"""Of lines of texts, in inches."""

DESCENT = 0.25 * style.SMALL_SIZE
"""Points of letters below their line."""

SLACK = 0.05
"""Inches that columns are wider than their longest words, which neighbours would join else."""

WIDEST = 0.95
"""Of columns, in inches: longer words are broken."""


@dataclass(frozen=True)
class Head:
    """What stands above a column: the heading of its neighbours too, and its own text.

    Breaks part the text into lines that stand side by side with those of the other columns.
    """

    group: str
    text: str


class Columns:
    """Where columns stand in an axes whose x is in inches, and what stands above them.

    Parameters
    ----------
    width
        Of each column, in inches; more below a heading that is wider than its columns.
    gap
        Between columns, in inches.
    turned
        Whether their texts are turned, for narrow columns.

    Attributes
    ----------
    widths, lefts
        Of the columns; those below one heading are equally wide.
    whole, above
        From the first to the last column's edge, and what headings and texts take.
    """

    def __init__(
        self, heads: Sequence[Head], width: float, *, gap: float = 0.0, turned: bool = False
    ) -> None:
        self._heads, self._turned = heads, turned
        runs: list[tuple[str, int]] = []
        for head in heads:
            if runs and runs[-1][0] == head.group:
                runs[-1] = head.group, runs[-1][1] + 1
            else:
                runs.append((head.group, 1))
        self.widths: list[float] = []
        self.lefts: list[float] = []
        self._groups: list[tuple[list[str], float, float]] = []
        left = 0.0
        for group, count in runs:
            texts = [head.text for head in heads[len(self.widths) :][:count]]
            wide = max([width, *map(self._least, texts)])
            # No word of a heading may reach into the next group.
            for word in group.split():
                # A hair more than just enough: sums of widths are rounded.
                wide = max(
                    wide, (drawn_width(word, weight="bold") + 0.01 - gap * (count - 1)) / count
                )
            self.widths += [wide] * count
            self.lefts += [left + at * (wide + gap) for at in range(count)]
            right = self.lefts[-1] + wide
            lines = wrapped(group, right - left, weight="bold") if group else []
            self._groups.append((lines, left, right))
            left = right + gap + GROUP_GAP
        self.whole = self.lefts[-1] + self.widths[-1]
        if turned:
            self._texts = ["\n".join(_lines(head.text)) for head in heads]
            self._below = max(drawn_width(line) for head in heads for line in _lines(head.text))
        else:
            self._texts = self._broken()
            self._below = PITCH * (1 + max(text.count("\n") for text in self._texts))
        most = max(len(lines) for lines, _, _ in self._groups)
        self.above = 0.05 + self._below + (LINE_HEIGHT * most + RULE if most else 0)

    def _least(self, text: str) -> float:
        if self._turned:
            return PITCH * len(_lines(text)) + SLACK
        return max((min(drawn_width(word) + SLACK, WIDEST) for word in _words(text)), default=0.0)

    def _broken(self) -> list[str]:
        """Break texts to the width, so that the same parts of all columns begin at one height."""
        parts = [
            [wrapped(part, width) for part in head.text.split("\n")]
            for head, width in zip(self._heads, self.widths, strict=True)
        ]
        most = max(map(len, parts))
        tall = [max(len(some[at]) for some in parts if at < len(some)) for at in range(most)]
        texts = []
        for some in parts:
            some = some + [[]] * (most - len(some))
            lines = [
                line
                for part, count in zip(some, tall, strict=True)
                for line in part + [""] * (count - len(part))
            ]
            texts.append("\n".join(lines))
        return texts

    def write(self, ax: Axes, height: float) -> None:
        """Write headings and texts above an axes of so many inches."""
        across = ax.get_xaxis_transform()
        for text, left, width in zip(self._texts, self.lefts, self.widths, strict=True):
            # By the last line's baseline: all upright texts have as many lines, some empty.
            up = 2.5 if self._turned else 2.5 + DESCENT
            ax.annotate(
                text,
                (left + width / 2, 1),
                (0, up),
                xycoords=across,
                textcoords="offset points",
                size=style.SMALL_SIZE,
                ha="center",
                va="bottom" if self._turned else "baseline",
                rotation=90 if self._turned else 0,
                multialignment="left" if self._turned else "center",
                linespacing=1.1,
            )
        rule = 1 + (0.05 + self._below + RULE / 2) / height
        for texts, left, right in self._groups:
            if not texts:
                continue
            ax.annotate(
                "\n".join(texts),
                ((left + right) / 2, rule),
                (0, 2),
                xycoords=across,
                textcoords="offset points",
                size=style.SMALL_SIZE,
                weight="bold",
                ha="center",
                va="bottom",
                linespacing=1.1,
            )
            line = Line2D([left, right], [rule, rule], transform=across, clip_on=False)
            line.set(color="black", lw=0.5)
            ax.add_line(line)


def model_rows(ax: Axes, models: Sequence[Model], width: float) -> None:
    """Name a row for each model, in the colour of its family, in an axes of so many inches."""
    ax.set_xlim(0, width)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xticks([])
    ax.set_yticks(range(len(models)), [model.label for model in models])
    ax.tick_params(axis="y", length=0, pad=3)
    for label, model in zip(ax.get_yticklabels(), models, strict=True):
        label.set_color(style.family_colour(model.family))
    ax.spines[:].set_visible(False)


def labels_width(models: Sequence[Model]) -> float:
    """Inches that the names of rows take."""
    return max(drawn_width(model.label) for model in models) + 0.08


def _words(text: str) -> list[str]:
    """Parts of a text that should not be broken: dataset names break at hyphens and the like."""
    return [part for part in re.findall(r"[^\s\-_./]+[\-_./]?", text) if part]


def _lines(text: str) -> list[str]:
    """Parts of a text that is turned, without empty ones: it is not aligned with its neighbours."""
    return [part for part in text.split("\n") if part]
