"""Figures across models, as jobs draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from tests.figures.made_tables import Made, models
from vitfeat.analyses.scoring import Curves
from vitfeat.figures import across
from vitfeat.figures.curves import Panel


def figure_of(
    of: Curves,
    name: str,
    made: Sequence[Made],
    rows: Sequence[Any],
    datasets: Sequence[str] = ("digits",),
) -> Figure:
    """One of :attr:`Curves.figures`, or the overview of some datasets with the same rows."""
    if name == "overview":
        tables = [(of, dict.fromkeys(datasets, rows))]
        return across.overview("analysis", of.title, tables, models(made)).figure
    return across.draw(name, "analysis", of, "digits", rows, models(made)).figure


def panels_of(
    of: Curves, made: Sequence[Made], rows: Sequence[Any], name: str = "by_layer"
) -> list[Panel]:
    """The panels of one of the figures."""
    return across.panels(of, "digits", rows, models(made), name)
