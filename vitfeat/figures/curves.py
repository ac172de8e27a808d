"""What the line figures draw: values by layer, one curve a model, one panel a metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.models import Model
from vitfeat.text import plural

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Values of one model by layer.

    Attributes
    ----------
    model
        Whose values.
    layers
        Numbers of the layers, ascending.
    values, low, high
        One a layer, NaN where there is none; low and high bound the band around the curve.
    n_images
        That the values are of: the least of its layers and heads.
    last
        The model's last layer, which depth is measured by: these may be some of its layers.
    """

    model: Model
    layers: tuple[int, ...]
    values: Floats
    low: Floats
    high: Floats
    n_images: int
    last: int

    @property
    def depth(self) -> Floats:
        """Layers over the last layer's number: from 0 to 1, whatever the network's depth."""
        return np.array(self.layers, dtype=np.float64) / max(self.last, 1)


@dataclass(frozen=True, eq=False)
class Panel:
    """One metric of several models.

    Attributes
    ----------
    dataset, name, title, unit
        What the values are: `name` in tables, `title` and `unit` on figures.
    curves
        One a model; models without values have none.
    baselines
        Curves of the same models that are drawn thin and grey, for reference.
    baseline
        What those are called.
    log
        Whether the axis is logarithmic.
    rare
        Whether few kinds of models have it, so that no word is lost on those without.
    floor
        Whether the area below the curve of an untrained model is grey: what it has, any has.
    counted
        What values are averages over, and `n_images` of the curves counts.
    """

    dataset: str
    name: str
    title: str
    unit: str
    curves: Sequence[Curve]
    baselines: Sequence[Curve] = field(default=())
    baseline: str = ""
    log: bool = False
    rare: bool = False
    floor: bool = False
    counted: str = "image"

    @property
    def heading(self) -> str:
        """Title with unit."""
        return heading(self.title, self.unit)


def heading(title: str, unit: str) -> str:
    """Return a title with its unit, as figures show it: shares of anything are ``share``."""
    shown = "share" if unit.startswith("share of ") else unit
    return f"{title} ({shown})" if shown else title


class CurveRow(NamedTuple):
    """One point of a figure by layer; `baseline` is empty for the models themselves."""

    dataset: str
    metric: str
    baseline: str
    unit: str
    model: str
    layer: int
    depth: float
    n_images: int
    value: float
    low: float
    high: float


def curve_rows(panels: Iterable[Panel]) -> Iterator[CurveRow]:
    """Return what panels draw, as rows of a table."""
    for panel in panels:
        for name, curves in (("", panel.curves), (panel.baseline, panel.baselines)):
            for curve in curves:
                points = zip(
                    curve.layers, curve.depth, curve.values, curve.low, curve.high, strict=True
                )
                for layer, *numbers in points:
                    depth, value, low, high = map(float, numbers)
                    yield CurveRow(
                        panel.dataset,
                        panel.name,
                        name,
                        panel.unit,
                        curve.model.id,
                        layer,
                        depth,
                        curve.n_images,
                        value,
                        low,
                        high,
                    )


def shown(models: Sequence[Model], panels: Iterable[Panel]) -> list[Model]:
    """Return the models that have a curve in some panel, in their order."""
    present = {curve.model.id for panel in panels for curve in panel.curves}
    return [model for model in models if model.id in present]


def missing(panels: Sequence[Panel], models: Sequence[Model]) -> list[str]:
    """Say which models have no values at all, and which none of a metric.

    Metrics that the same models lack stand together.

    Parameters
    ----------
    panels
        Of one figure; those of several datasets may be among them.
    models
        All that the figure should show.
    """
    absent: dict[tuple[str, ...], list[str]] = {}
    counted = [panel for panel in panels if not panel.rare]
    somewhere = {curve.model.id for panel in counted for curve in panel.curves}
    nowhere = [m.label for m in models if m.id not in somewhere]
    for panel in counted:
        present = {curve.model.id for curve in panel.curves}
        if lacking := tuple(m.label for m in models if m.id in somewhere - present):
            named = absent.setdefault(lacking, [])
            if panel.title not in named:
                named.append(panel.title)
    found = no_values_of(nowhere)
    for labels, names in absent.items():
        whose = ", ".join(labels) if len(labels) < len(models) else "all models"
        found.append(f"No values of {whose}: {', '.join(names)}.")
    return found


def no_values_of(labels: Sequence[str]) -> list[str]:
    """Say which models have no values; nothing where all have some."""
    return [f"No values of {', '.join(labels)}."] if labels else []


def floors(panels: Iterable[Panel]) -> list[str]:
    """Say what the grey areas are, where there are some."""
    drawn = any(
        curve.model.family in style.UNTRAINED_FAMILIES
        for panel in panels
        if panel.floor
        for curve in panel.curves
    )
    return ["Grey area: below an untrained model."] if drawn else []


def least(counts: Iterable[int]) -> int:
    """Return the least number of images that a value is of; values of none are no values."""
    return min((count for count in counts if count), default=0)


def images_text(counts: Iterable[int], counted: str = "image") -> str:
    """Say how many images values are of: ``599 images``, or ``580 to 599 images``.

    Parameters
    ----------
    counts
        Zero is no value.
    counted
        What is counted, where it is not images.

    Raises
    ------
    AnalysisError
        There is no value.
    """
    found = sorted({count for count in counts if count})
    if not found:
        raise AnalysisError("no values to draw: the models' tables hold none")
    if len(found) == 1:
        return plural(found[0], counted)
    return f"{found[0]:,} to {plural(found[-1], counted)}"


def panel_images(panels: Sequence[Panel]) -> str:
    """Say how many images, or whatever is counted, the curves of panels are of."""
    counts = [curve.n_images for panel in panels for curve in panel.curves]
    return images_text(counts, panels[0].counted if panels else "image")


def source(panels: Sequence[Panel]) -> str:
    """Name the dataset of panels, and say how many images they are of.

    Raises
    ------
    AnalysisError
        No panel has a value.
    """
    images = panel_images(panels)
    return f"{panels[0].dataset}, {images}"
