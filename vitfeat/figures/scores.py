"""Figures of one task across models: by layer, by family, best layers, details, all datasets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import Rank
from vitfeat.errors import AnalysisError
from vitfeat.figures.best import best_figure, best_layers
from vitfeat.figures.curves import Panel, floors, missing, shown, source
from vitfeat.figures.families import by_family
from vitfeat.figures.lines import Section, by_layer
from vitfeat.figures.looks import size_groups
from vitfeat.figures.measures import kinds, series
from vitfeat.figures.models import Model
from vitfeat.figures.panels import BY_CHANCE, ScorePanel, score_panels

BAND = "Bands: from the least to the greatest seed."

ACROSS = 3
"""Panels side by side where there is a single kind of features."""

HIGHEST = f"{BY_CHANCE}, highest"
"""What the line of the highest level of chance is called, where models have unlike ones."""

BEST_WIDTH, NARROW_BEST_WIDTH = 1.7, 1.45
"""Inches of a column of best layers: of up to two scores, and of more."""


def panels(
    task: str, dataset: str, rows: Sequence[ScoreRow], models: Sequence[Model], upto: Rank
) -> list[ScorePanel]:
    """Put the scores of one dataset together, a panel for each measure and kind of features.

    Parameters
    ----------
    task, dataset
        Their names.
    rows
        Of all models, of this task and dataset.
    models
        Those to draw.
    upto
        The last rank of measures that is wanted. :attr:`Rank.DETAILS` gives the details alone, of
        several measures those of the first kind of features that some model has.

    Raises
    ------
    AnalysisError
        The rows hold no score that is drawn.
    """
    details = upto is Rank.DETAILS
    wanted = [
        one
        for one in series(task, rows)
        if (one.rank is Rank.DETAILS if details else one.rank <= upto)
    ]
    held = kinds(task, rows)
    if not wanted or not held:
        raise AnalysisError(
            f"no values to draw: the tables of {task} on {dataset} hold none of the scores of this "
            "figure"
        )
    few = held[:1] if details and len(wanted) > 1 else held
    return score_panels(task, dataset, rows, models, wanted, few)


def layers_figure(given: Sequence[ScorePanel], models: Sequence[Model]) -> Figure:
    """Draw the scores of one dataset by layer; the area below an untrained model's is grey.

    Parameters
    ----------
    given
        From :func:`panels`.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        No model has values.
    """
    drawn = [one.panel for one in given]
    section = _section("", given, models)
    return by_layer(
        [section],
        models,
        title=f"{_title(given)} by layer",
        note=f"{_source(given)}. Layers counted from 0.",
        band=_if_banded(drawn, BAND),
        remarks=_meaning(given) + below(section.panels, models),
    )


def details_figure(given: Sequence[ScorePanel], models: Sequence[Model]) -> Figure:
    """Draw the details of one dataset by layer, each score on its own scale.

    Parameters and errors are those of :func:`layers_figure`.
    """
    drawn = [one.panel for one in given]
    task = scored()[given[0].task]
    drawn = one_chance(drawn, models)
    return by_layer(
        [Section("", drawn, 2 if len(drawn) == 4 else ACROSS)],
        models,
        title=task.details,
        note=f"{_source(given)}. Layers counted from 0.",
        remarks=[task.details_meaning, *below(drawn, models)],
    )


def families_figure(given: Sequence[ScorePanel], models: Sequence[Model]) -> Figure:
    """Draw the scores of one dataset over depth, a panel for each family.

    Parameters and errors are those of :func:`layers_figure`.
    """
    drawn = [one.panel for one in given]
    return by_family(
        drawn,
        models,
        title=f"{_title(given)}, by family",
        note=f"{_source(given)}. Over depth: 0 is the first layer, 1 the last.",
        remarks=_meaning(given) + missing(drawn, models),
    )


def best_layers_figure(given: Sequence[ScorePanel], models: Sequence[Model]) -> Figure:
    """Draw the best layer of each model of one dataset.

    Parameters and errors are those of :func:`layers_figure`.
    """
    drawn = [one.panel for one in given]
    task = scored()[given[0].task]
    held = {panel.name.partition("/")[2] for panel in drawn}
    names = {key: task.kind_named(key) for key in task.ordered_kinds(sorted(held))}
    behind = {key: f", {name}" if len(names) > 1 else "" for key, name in names.items()}
    columns: dict[str, str] = {}
    for panel in drawn:
        key, _, kind = panel.name.partition("/")
        columns.setdefault(key, panel.title.removesuffix(behind[kind]))
    strokes = _if_banded(drawn, "Strokes: from the least to the greatest seed. ")
    return best_figure(
        best_layers(drawn),
        models,
        columns,
        names,
        title=f"{task.title}: the best layer",
        note=f"{source(drawn)}. The best layer is chosen on the same {task.counted}s. {strokes}"
        "Depth: 0 is the first layer, 1 the last.",
        baseline=f"{BY_CHANCE}, same layer",
        remarks=_meaning(given) + missing(drawn, models),
        width=BEST_WIDTH if len(columns) < 3 else NARROW_BEST_WIDTH,
    )


def overview(given: Mapping[str, Sequence[ScorePanel]], models: Sequence[Model]) -> Figure:
    """Draw the main scores of all datasets by layer.

    Parameters
    ----------
    given
        Of each dataset, from :func:`panels`.
    models
        Those to draw.

    Raises
    ------
    AnalysisError
        A dataset without values.
    """
    every = [one for some in given.values() for one in some]
    drawn = [one.panel for one in every]
    sections = [_section(_source(some), some, models) for some in given.values()]
    return by_layer(
        sections,
        models,
        title=f"{_title(every)} by layer",
        note="Layers counted from 0.",
        band=_if_banded(drawn, BAND),
        remarks=_meaning(every) + below([p for one in sections for p in one.panels], models),
    )


def one_chance(panels: Sequence[Panel], models: Sequence[Model]) -> list[Panel]:
    """Put what is expected by chance of the models of a size into one line: the highest of theirs.

    Of every model for itself there would be as many dotted lines as models, and none of them could
    be told whose it is.

    Parameters
    ----------
    panels
        Of one figure.
    models
        Those that it draws.
    """
    depths = {curve.model.id: len(curve.layers) for panel in panels for curve in panel.curves}
    groups = size_groups(shown(models, panels), depths)
    return [_with_highest(panel, groups) for panel in panels]


def below(panels: Sequence[Panel], models: Sequence[Model]) -> list[str]:
    """Say what grey areas and dotted lines are, and what is missing.

    Parameters
    ----------
    panels
        From :func:`one_chance`.
    models
        Those that they draw.
    """
    highest = any(panel.baseline == HIGHEST for panel in panels)
    said = [f"{HIGHEST.capitalize()}: of the models, layer by layer."] if highest else []
    return floors(panels) + said + missing(panels, models)


def _with_highest(panel: Panel, groups: Sequence[Sequence[Model]]) -> Panel:
    made, unlike = [], False
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
            made.append(replace(longest, layers=layers, values=highest, low=highest, high=highest))
    name = HIGHEST if unlike else panel.baseline
    return replace(panel, baselines=made, baseline=name)


def _source(given: Sequence[ScorePanel]) -> str:
    """Name the dataset and what is counted, and the kind where there is one of several."""
    task = scored()[given[0].task]
    held = {one.panel.name.partition("/")[2] for one in given}
    # Of several kinds the panels say which.
    only = f"; {task.kinds[held.pop()]}" if len(held) == 1 < len(task.kinds) else ""
    return f"{source([one.panel for one in given])}{only}"


def _meaning(given: Sequence[ScorePanel]) -> list[str]:
    meaning = scored()[given[0].task].meaning
    return [meaning] if meaning else []


def _title(given: Sequence[ScorePanel]) -> str:
    return scored()[given[0].task].title


def _section(heading: str, given: Sequence[ScorePanel], models: Sequence[Model]) -> Section:
    drawn = one_chance([one.panel for one in given], models)
    kinds = len({panel.name.partition("/")[2] for panel in drawn})
    columns = kinds if kinds > 1 else min(ACROSS, len(drawn))
    return Section(heading, drawn, columns, common=scored()[given[0].task].common)


def _if_banded(panels: Sequence[Panel], text: str) -> str:
    """Return what is said of bands where some curve has one."""
    banded = any((curve.high > curve.low).any() for panel in panels for curve in panel.curves)
    return text if banded else ""
