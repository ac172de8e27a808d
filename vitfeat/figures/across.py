"""The figures across models of an analysis, from its tables and what it says is to be drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import Curves, Measure, Members, Point, Rank, Scoring
from vitfeat.errors import AnalysisError
from vitfeat.figures.averages import measure_against_measure
from vitfeat.figures.best import best_figure
from vitfeat.figures.breakout import breakout
from vitfeat.figures.curves import (
    AverageRow,
    Curve,
    CurveRow,
    HeadRow,
    Panel,
    ScorePoint,
    average_rows,
    best_points,
    curve_rows,
    floors,
    head_rows,
    least,
    missing,
    score_points,
    shown,
    source,
)
from vitfeat.figures.families import by_family
from vitfeat.figures.groups import groups_figure, groups_of
from vitfeat.figures.lines import Section, by_layer
from vitfeat.figures.looks import size_groups
from vitfeat.figures.models import Model

ACROSS = 3
"""Panels side by side where there is a single kind of features."""

BANDS = {Members.SEEDS: (0.0, 1.0), Members.HEADS: (0.25, 0.75)}
"""Quantiles that bands over members reach from and to."""


class Drawn(NamedTuple):
    """A figure, and the rows of the table beside it."""

    figure: Figure
    kind: type[NamedTuple]
    rows: Iterable[Any]


@dataclass(frozen=True)
class Series:
    """A score with its variant (empty where it is the kind), and what it is called on figures."""

    score: str
    variant: str
    title: str
    measure: Measure

    @property
    def key(self) -> str:
        """Name without slashes, for names of panels."""
        return f"{self.score} {self.variant}".strip()


class Points:
    """What the tables of one dataset hold of what is drawn: panels are made of it."""

    def __init__(self, of: Curves, dataset: str, rows: Iterable[Any]) -> None:
        self._of, self._dataset = of, dataset
        self._held: dict[tuple[str, str], dict[str, dict[str, list[Point]]]] = {}
        self._last: defaultdict[str, int] = defaultdict(int)
        for row in rows:
            if (point := of.as_point(row)) is not None:
                self._last[point.model] = max(self._last[point.model], point.layer)
                kinds = self._held.setdefault((point.score, point.variant), {})
                kinds.setdefault(point.kind, {}).setdefault(point.model, []).append(point)

    def series(self) -> list[Series]:
        """Return what there is to draw, in the order of the figures."""
        variants: dict[str, list[str]] = {}
        for score, variant in self._held:
            variants.setdefault(score, []).append(variant)
        series = []
        for measure in self._of.measures:
            stem = measure.score.removesuffix("*")
            several = stem != measure.score
            scores = [s for s in variants if s == stem or (several and s.startswith(stem))]
            for variant in dict.fromkeys(v for score in scores for v in variants[score]):
                for score in scores:
                    held = variants[score]
                    if variant in held and self._of.is_asked(measure, variant, held):
                        named, rest = self._of.named(variant), score.removeprefix(stem)
                        title = measure.title.format(variant=named, rest=rest)
                        series.append(Series(score, variant, title, measure))
        return series

    def kinds(self, wanted: Iterable[Series]) -> list[str]:
        """Return the kinds that some series have, in the order of the figures."""
        return self._of.ordered_kinds(
            kind for one in wanted for kind in self._held[one.score, one.variant]
        )

    def panels(
        self, wanted: Sequence[Series], kinds: Sequence[str], models: Sequence[Model]
    ) -> list[Panel]:
        """Return a panel for each series and kind."""
        several = len(kinds) > 1
        return [self._panel(one, kind, models, several) for one in wanted for kind in kinds]

    def _panel(self, one: Series, kind: str, models: Sequence[Model], several: bool) -> Panel:
        of = self._of
        held = self._held[one.score, one.variant].get(kind, {})
        expected = self._held.get((of.chance.get(one.score, ""), one.variant), {}).get(kind, {})
        drawn = [model for model in models if model.id in held]
        points = [point for model in drawn for point in held[model.id]]
        baselines = [self._curve(m, expected[m.id]) for m in drawn if m.id in expected]
        return Panel(
            self._dataset,
            one.score,
            kind if of.by_variant else one.variant,
            points[0].features if points else "",
            one.key,
            one.title,
            ", ".join(sorted({point.unit for point in points})),
            [self._curve(model, held[model.id]) for model in drawn],
            kind,
            of.kind_named(kind) if several else "",
            baselines,
            of.by_chance if baselines else "",
            log=of.log,
            rare=one.measure.rare,
            floor=of.is_ranked(one.score),
            counted=one.measure.counted or of.counted,
        )

    def _curve(self, model: Model, points: Sequence[Point]) -> Curve:
        layers = sorted({point.layer for point in points})
        names = sorted({p.member for p in points if p.member}, key=lambda name: (len(name), name))
        if self._of.members is Members.HEADS and len(points) != len(layers) * (len(names) or 1):
            raise AnalysisError(
                f"{points[0].score} of {model.id} on {self._dataset} has {len(points)} values for "
                f"{len(layers)} layers of {len(names) or 1} heads: compute its table again"
            )
        whole = {point.layer: point.value for point in points if not point.member}
        members = np.full((len(layers), len(names)), np.nan)
        for point in points:
            if point.member:
                members[layers.index(point.layer), names.index(point.member)] = point.value
        held = np.isfinite(members)
        total, count = np.where(held, members, 0).sum(axis=1), held.sum(axis=1)
        means = np.where(count, total / np.maximum(count, 1), np.nan)
        values = np.array([whole.get(at, mean) for at, mean in zip(layers, means, strict=True)])
        members = members if names else values[:, None]
        low = high = values
        if self._of.members is Members.IMAGES:
            deviations = {point.layer: point.deviation for point in points}
            deviation = np.array([deviations[layer] for layer in layers])
            low, high = values - deviation, values + deviation
        elif self._of.members in BANDS:
            bounds = np.full((len(layers), 2), np.nan)
            for place, layer in enumerate(members):
                if (finite := layer[np.isfinite(layer)]).size:
                    bounds[place] = np.quantile(finite, BANDS[self._of.members])
            low, high = bounds.T
        n = least(point.n for point in points)
        return Curve(model, tuple(layers), values, low, high, members, n, self._last[model.id])


def panels(
    of: Curves, dataset: str, rows: Iterable[Any], models: Sequence[Model], figure: str
) -> list[Panel]:
    """Put the values of one dataset together, a panel for each measure and kind of features.

    `figure` is one of :attr:`Curves.figures`, or ``overview``.
    """
    points = Points(of, dataset, rows)
    series = [one for one in points.series() if _WANTED.get(figure, _of_set)(one.measure)]
    if figure == "averages":
        scores = {score for pair in of.pairs for score in pair}
        series = [one for one in series if one.score in scores]
    kinds = points.kinds(series)
    if figure == "overview" and of.main_kinds:
        kinds = [kind for kind in kinds if kind in of.main_kinds]
    # Details of several measures are of the features alone that count most.
    kinds = kinds[:1] if figure == "details" and len(series) > 1 else kinds
    if not kinds:
        raise AnalysisError(
            f"no values to draw: the tables of {dataset} hold none of what this figure shows "
            f"({of.title})"
        )
    return points.panels(series, kinds, models)


def _of_set(measure: Measure) -> bool:
    return measure.rank <= Rank.SET


_WANTED: Mapping[str, Callable[[Measure], bool]] = {
    "overview": lambda measure: measure.rank is Rank.OVERVIEW,
    "details": lambda measure: measure.rank is Rank.DETAILS,
    "breakout": lambda measure: measure.heads or measure.rank is Rank.HEADS,
}


@dataclass(frozen=True)
class _Given:
    """What a figure of one dataset is of."""

    analysis: str
    of: Curves
    rows: Sequence[Any]
    models: Sequence[Model]
    panels: Sequence[Panel]

    @property
    def source(self) -> str:
        """Name the dataset and what is counted, and the kind where there is one of several."""
        held = {panel.kind for panel in self.panels}
        only = f"; {self.of.kind_named(held.pop())}" if len(held) == 1 < len(self.of.kinds) else ""
        return f"{source(self.panels)}{only}."

    @property
    def section(self) -> Section:
        """The panels by layer, with one line of chance."""
        kinds = len({panel.kind for panel in self.panels})
        columns = kinds if kinds > 1 else min(ACROSS, len(self.panels))
        return Section("", one_chance(self.panels, self.models), columns, self.of.common)

    def note(self, text: str) -> str:
        """Return what stands above a figure of curves."""
        scale = "Logarithmic scale. " if self.of.log else ""
        return f"{self.source} {self.of.members.means}{scale}{text}"

    def footnotes(self) -> list[str]:
        """Return what stands below, before what is missing."""
        return _footnotes(self.of, {self.panels[0].dataset: self.rows}, self.models)

    def numbers(self) -> tuple[type[NamedTuple], Iterable[Any]]:
        """Return the rows of the table beside a figure of curves."""
        if isinstance(self.of, Scoring):
            return ScorePoint, score_points(self.panels, self.analysis)
        return CurveRow, curve_rows(self.panels)


def draw(
    figure: str,
    analysis: str,
    of: Curves,
    dataset: str,
    rows: Sequence[Any],
    models: Sequence[Model],
) -> Drawn:
    """Draw a figure of one dataset."""
    if isinstance(of, Scoring) and figure == "groups":
        groups = groups_of(of, dataset, rows, models)
        return Drawn(groups_figure(of, dataset, groups, models), ScoreRow, groups.rows)
    given = _Given(analysis, of, rows, models, panels(of, dataset, rows, models, figure))
    return _DRAWINGS[figure](given)


def overview(
    analysis: str,
    title: str,
    tables: Sequence[tuple[Curves, Mapping[str, Sequence[Any]]]],
    models: Sequence[Model],
) -> Drawn:
    """Draw the main measures of all datasets by layer."""
    given = [
        _Given(analysis, of, some, models, panels(of, dataset, some, models, "overview"))
        for of, rows in tables
        for dataset, some in rows.items()
    ]
    datasets = list(tables[0][1])
    sections = []
    for one in sorted(given, key=lambda one: datasets.index(one.panels[0].dataset)):
        heading = one.source.removesuffix(".")
        if len(tables) > 1:
            scale = ", logarithmic scale" if one.of.log else ""
            heading += f": {one.of.title[:1].lower()}{one.of.title[1:]}{scale}"
        sections.append(replace(one.section, heading=heading))
    drawn = [panel for section in sections for panel in section.panels]
    notes = [note for of, rows in tables for note in _footnotes(of, rows, models)]
    means = "".join(dict.fromkeys(of.members.means for of, _ in tables))
    figure = by_layer(
        sections,
        models,
        title=title,
        note=f"{means}Layers counted from 0.",
        band=" ".join(dict.fromkeys(filter(None, map(_band, given)))),
        remarks=[*notes, *below(drawn, models)],
    )
    kind = given[0].numbers()[0]
    return Drawn(figure, kind, (row for one in given for row in one.numbers()[1]))


def _by_layer(given: _Given) -> Drawn:
    figure = by_layer(
        [given.section],
        given.models,
        title=f"{given.of.title} by layer",
        note=given.note("Layers counted from 0."),
        band=_band(given),
        remarks=[*given.footnotes(), *below(given.section.panels, given.models)],
    )
    return Drawn(figure, *given.numbers())


def _details(given: _Given) -> Drawn:
    """Draw the details by layer, each score on its own scale."""
    assert isinstance(given.of, Scoring)
    columns = 2 if len(given.panels) == 4 else ACROSS
    section = replace(given.section, columns=columns, common=False)
    figure = by_layer(
        [section],
        given.models,
        title=given.of.details,
        note=given.note("Layers counted from 0."),
        remarks=[given.of.details_meaning, *given.of.set_to, *below(section.panels, given.models)],
    )
    return Drawn(figure, *given.numbers())


def _families(given: _Given) -> Drawn:
    figure = by_family(
        given.panels,
        given.models,
        title=f"{given.of.title}, by family",
        note=given.note("Over depth: 0 is the first layer, 1 the last."),
        remarks=[*given.footnotes(), *missing(given.panels, given.models)],
    )
    return Drawn(figure, *given.numbers())


def _best(given: _Given) -> Drawn:
    of = given.of
    strokes = f"Strokes: {of.members.band}. " if _band(given) else ""
    kinds = dict.fromkeys(panel.kind for panel in given.panels)
    figure = best_figure(
        given.panels,
        given.models,
        {kind: of.kind_named(kind) for kind in kinds},
        title=f"{of.title}: the best layer",
        note=f"{given.source} The best layer is chosen on the same {of.counted}s. {strokes}"
        "Depth: 0 is the first layer, 1 the last.",
        baseline=f"{of.by_chance}, same layer",
        remarks=[*given.footnotes(), *missing(given.panels, given.models)],
    )
    return Drawn(figure, ScorePoint, best_points(given.panels, given.analysis))


def _breakout(given: _Given) -> Drawn:
    figure = breakout(
        given.panels,
        given.models,
        title=f"{given.of.title}, head by head",
        note=f"{given.source} A dot for each head, a bar for the mean of a layer; layers from "
        "left to right.",
        remarks=[*given.footnotes(), *missing(given.panels, given.models)],
    )
    return Drawn(figure, HeadRow, head_rows(given.panels))


def _averages(given: _Given) -> Drawn:
    held = {panel.score: panel for panel in given.panels}
    pairs = [(held[x], held[y]) for x, y in given.of.pairs if x in held and y in held]
    figure = measure_against_measure(
        pairs,
        given.models,
        title=f"{given.of.title} of whole networks",
        note=f"{given.source} Means over all layers and heads.",
        remarks=[*given.footnotes(), *missing(given.panels, given.models)],
    )
    return Drawn(figure, AverageRow, average_rows(given.panels))


_DRAWINGS: Mapping[str, Callable[[_Given], Drawn]] = {
    "by_layer": _by_layer,
    "families": _families,
    "best": _best,
    "details": _details,
    "breakout": _breakout,
    "averages": _averages,
}


def one_chance(panels: Sequence[Panel], models: Sequence[Model]) -> list[Panel]:
    """Put what is expected by chance of the models of a size into one line: the highest of theirs.

    Of every model for itself there would be as many dotted lines as models, and none of them could
    be told whose it is.
    """
    depths = {curve.model.id: len(curve.layers) for panel in panels for curve in panel.curves}
    groups = size_groups(shown(models, panels), depths)
    return [_with_highest(panel, groups) for panel in panels]


def below(panels: Sequence[Panel], models: Sequence[Model]) -> list[str]:
    """Say what grey areas and dotted lines are, and what is missing of :func:`one_chance`."""
    highest = {panel.baseline for panel in panels if panel.baseline.endswith(_HIGHEST)}
    said = [f"{name.capitalize()}: of the models, layer by layer." for name in highest]
    return floors(panels) + said + missing(panels, models)


_HIGHEST = ", highest"
"""Behind the name of a line of the highest level of chance, where models have unlike ones."""


def _with_highest(panel: Panel, groups: Sequence[Sequence[Model]]) -> Panel:
    lines, unlike = [], False
    for group in groups:
        ids = {model.id for model in group}
        values: defaultdict[int, list[float]] = defaultdict(list)
        mine = [curve for curve in panel.baselines if curve.model.id in ids]
        for curve in mine:
            for layer, value in zip(curve.layers, curve.values, strict=True):
                if np.isfinite(value):
                    values[layer].append(float(value))
        if values:
            layers = tuple(sorted(values))
            highest = np.array([max(values[layer]) for layer in layers])
            unlike |= any(min(some) < max(some) for some in values.values())
            longest = max(mine, key=lambda curve: len(curve.layers))
            lines.append(replace(longest, layers=layers, values=highest, low=highest, high=highest))
    name = f"{panel.baseline}{_HIGHEST}" if unlike else panel.baseline
    return replace(panel, baselines=lines, baseline=name)


def _footnotes(of: Curves, rows: Mapping[str, Sequence[Any]], models: Sequence[Model]) -> list[str]:
    labels = {model.id: model.label for model in models}
    return [*([of.meaning] if of.meaning else []), *of.footnotes(rows, labels), *of.set_to]


def _band(given: _Given) -> str:
    """Return what is said of bands where some curve has one."""
    curves = [curve for panel in given.panels for curve in panel.curves]
    banded = any((curve.high > curve.low).any() for curve in curves)
    return f"Bands: {given.of.members.band}." if banded else ""
