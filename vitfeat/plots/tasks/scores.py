"""Figures of one task across models: by layer, by family, best layers, details, all datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from vitfeat.analysis.rows import TaskRow
from vitfeat.errors import AnalysisError
from vitfeat.plots.across.best import best_figure, best_layers
from vitfeat.plots.across.curves import Panel, floors, missing, source
from vitfeat.plots.across.families import by_family
from vitfeat.plots.across.lines import Section, by_layer
from vitfeat.plots.models import Model
from vitfeat.plots.tasks.measures import DRAWN, Rank, kinds, series
from vitfeat.plots.tasks.panels import BY_CHANCE, TaskPanel, task_panels

BAND = "Bands: from the least to the greatest seed."

ACROSS = 3
"""Panels side by side where there is a single kind of features."""


def panels(
    task: str, dataset: str, rows: Sequence[TaskRow], models: Sequence[Model], upto: Rank
) -> list[TaskPanel]:
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
    return task_panels(task, dataset, rows, models, wanted, few)


def layers_figure(given: Sequence[TaskPanel], models: Sequence[Model]) -> Figure:
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
    return by_layer(
        [_section("", given)],
        models,
        title=f"{_title(given)} by layer",
        note=f"{source(drawn)}. Layers counted from 0.",
        band=_if_banded(drawn, BAND),
        remarks=floors(drawn) + missing(drawn, models),
    )


def details_figure(given: Sequence[TaskPanel], models: Sequence[Model]) -> Figure:
    """Draw the details of one dataset by layer, each score on its own scale.

    Parameters and errors are those of :func:`layers_figure`.
    """
    drawn = [one.panel for one in given]
    task = DRAWN[given[0].task]
    shown = {panel.name.partition("/")[2] for panel in drawn}
    # Of several kinds the panels say which.
    only = f"; {task.kinds[shown.pop()]}" if len(shown) == 1 < len(task.kinds) else ""
    return by_layer(
        [Section("", drawn, 2 if len(drawn) == 4 else ACROSS)],
        models,
        title=task.details,
        note=f"{source(drawn)}{only}. Layers counted from 0.",
        remarks=floors(drawn) + missing(drawn, models),
    )


def families_figure(given: Sequence[TaskPanel], models: Sequence[Model]) -> Figure:
    """Draw the scores of one dataset over depth, a panel for each family.

    Parameters and errors are those of :func:`layers_figure`.
    """
    drawn = [one.panel for one in given]
    return by_family(
        drawn,
        models,
        title=f"{_title(given)}, by family",
        note=f"{source(drawn)}. Over depth: 0 is the first layer, 1 the last.",
        remarks=missing(drawn, models),
    )


def best_layers_figure(given: Sequence[TaskPanel], models: Sequence[Model]) -> Figure:
    """Draw the best layer of each model of one dataset.

    Parameters and errors are those of :func:`layers_figure`.
    """
    drawn = [one.panel for one in given]
    task = DRAWN[given[0].task]
    held = {panel.name.partition("/")[2] for panel in drawn}
    names = {key: name for key, name in task.kinds.items() if key in held}
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
        remarks=missing(drawn, models),
    )


def overview(given: Mapping[str, Sequence[TaskPanel]], models: Sequence[Model]) -> Figure:
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
    return by_layer(
        [_section(source([one.panel for one in some]), some) for some in given.values()],
        models,
        title=f"{_title(every)} by layer",
        note="Layers counted from 0.",
        band=_if_banded(drawn, BAND),
        remarks=floors(drawn) + missing(drawn, models),
    )


def _title(given: Sequence[TaskPanel]) -> str:
    return DRAWN[given[0].task].title


def _section(heading: str, given: Sequence[TaskPanel]) -> Section:
    drawn = [one.panel for one in given]
    kinds = len({panel.name.partition("/")[2] for panel in drawn})
    columns = kinds if kinds > 1 else min(ACROSS, len(drawn))
    return Section(heading, drawn, columns, common=DRAWN[given[0].task].common)


def _if_banded(panels: Sequence[Panel], text: str) -> str:
    """Return what is said of bands where some curve has one."""
    banded = any((curve.high > curve.low).any() for panel in panels for curve in panel.curves)
    return text if banded else ""
