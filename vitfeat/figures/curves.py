"""What figures across models draw: values by layer, a curve a model, a panel a measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.models import Model
from vitfeat.text import plural

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Values of one model by layer."""

    model: Model
    layers: tuple[int, ...]  # numbers of the layers, ascending
    # values, low, high: (layer,), NaN where there is none; low and high bound the band around the
    # curve
    values: Floats
    low: Floats
    high: Floats
    # (layer, member): what the values are means of, such as heads, NaN where one has none; the
    # values themselves in a single column where they are of whole layers.
    members: Floats
    n_images: int  # that the values are of: the least of its layers and members
    last: int  # the model's last layer, which depth is measured by: these may be some of its layers

    @property
    def depth(self) -> Floats:
        """Layers over the last layer's number: from 0 to 1, whatever the network's depth."""
        return np.array(self.layers, dtype=np.float64) / max(self.last, 1)


@dataclass(frozen=True, eq=False)
class Panel:
    """One measure of several models."""

    dataset: str
    score: str
    variant: str
    features: str
    key: str  # score and variant in one
    measure: str
    unit: str
    curves: Sequence[Curve]  # one a model; models without values have none
    # kind, kind_name: which kind of features it is of; what that is called, empty where there is
    # one alone
    kind: str = ""
    kind_name: str = ""
    # Curves of the same models that are drawn thin and grey, for reference.
    baselines: Sequence[Curve] = field(default=())
    baseline: str = ""  # what those are called
    log: bool = False
    # Whether few kinds of models have it, so that no word is lost on those without.
    rare: bool = False
    # Whether the area below the curve of an untrained model is grey: what it has, any has.
    floor: bool = False
    counted: str = "image"  # what values are averages over, and `n_images` of the curves counts

    @property
    def name(self) -> str:
        """In tables beside figures."""
        return f"{self.key}/{self.kind}" if self.kind else self.key

    @property
    def title(self) -> str:
        """Measure and kind."""
        return f"{self.measure}, {self.kind_name}" if self.kind_name else self.measure

    @property
    def heading(self) -> str:
        """Title with unit: shares of anything are ``share``."""
        unit = "share" if self.unit.startswith("share of ") else self.unit
        return f"{self.title} ({unit})" if unit else self.title


def best_place(curve: Curve) -> int | None:
    """Return where a curve's greatest value stands, the first of equal ones; None without any."""
    return int(np.nanargmax(curve.values)) if np.isfinite(curve.values).any() else None


def chance_at(panel: Panel, curve: Curve, place: int) -> float:
    """Return the baseline's value of a model's layer, NaN without one."""
    layer = curve.layers[place]
    for baseline in panel.baselines:
        if baseline.model == curve.model and layer in baseline.layers:
            return float(baseline.values[baseline.layers.index(layer)])
    return np.nan


class CurveRow(NamedTuple):
    """One point of a figure by layer of what is not scored."""

    dataset: str
    metric: str
    unit: str
    model: str
    layer: int
    depth: float
    n_images: int
    value: float
    low: float
    high: float


class ScorePoint(NamedTuple):
    """One point of a figure by layer or of best layers; `low` and `high` bound its band.

    ``variant`` is empty where every layer chooses its own. ``chance`` is what is expected by
    chance, NaN where that is not known.
    """

    task: str
    dataset: str
    model: str
    features: str
    variant: str
    score: str
    layer: int
    depth: float
    n: int
    value: float
    low: float
    high: float
    chance: float


class HeadRow(NamedTuple):
    """One dot of a figure head by head."""

    dataset: str
    metric: str
    unit: str
    model: str
    layer: int
    head: int
    value: float


class AverageRow(NamedTuple):
    """A metric of a whole network."""

    dataset: str
    metric: str
    unit: str
    model: str
    n_images: int
    value: float


RowT = TypeVar("RowT", bound=NamedTuple)


def row_of(kind: type[RowT], panel: Panel, curve: Curve, place: int = 0, **more: Any) -> RowT:
    """Return a row of a table beside a figure: what it says of a place of a curve, and `more`."""
    values: dict[str, Any] = {
        "dataset": panel.dataset,
        "metric": panel.name,
        "features": panel.features,
        "variant": panel.variant,
        "score": panel.score,
        "unit": panel.unit,
        "model": curve.model.id,
        "layer": curve.layers[place],
        "depth": float(curve.depth[place]),
        "n": curve.n_images,
        "n_images": curve.n_images,
        "value": float(curve.values[place]),
        "low": float(curve.low[place]),
        "high": float(curve.high[place]),
    }
    values |= more
    return kind._make(values[name] for name in kind._fields)


def curve_rows(panels: Iterable[Panel]) -> Iterator[CurveRow]:
    """Return what figures by layer draw."""
    for panel in panels:
        for curve in panel.curves:
            for place in range(len(curve.layers)):
                yield row_of(CurveRow, panel, curve, place)


def score_points(panels: Iterable[Panel], analysis: str) -> Iterator[ScorePoint]:
    """Return what figures by layer draw of a scored analysis."""
    for panel in panels:
        for curve in panel.curves:
            for place in range(len(curve.layers)):
                chance = chance_at(panel, curve, place)
                yield row_of(ScorePoint, panel, curve, place, task=analysis, chance=chance)


def best_points(panels: Iterable[Panel], analysis: str) -> Iterator[ScorePoint]:
    """Return the best layer of every curve of a scored analysis."""
    for panel in panels:
        for curve in panel.curves:
            if (place := best_place(curve)) is not None:
                chance = chance_at(panel, curve, place)
                yield row_of(ScorePoint, panel, curve, place, task=analysis, chance=chance)


def head_rows(panels: Iterable[Panel]) -> Iterator[HeadRow]:
    """Return the dots of figures head by head."""
    for panel in panels:
        for curve in panel.curves:
            for (place, head), value in np.ndenumerate(curve.members):
                yield row_of(HeadRow, panel, curve, place, head=head, value=float(value))


def network_means(panel: Panel) -> Mapping[str, float]:
    """Average curves over layers, all of which count alike: by model id, where there is a value."""
    held = {curve.model.id: curve.values[np.isfinite(curve.values)] for curve in panel.curves}
    return {model: float(values.mean()) for model, values in held.items() if values.size}


def average_rows(panels: Iterable[Panel]) -> Iterator[AverageRow]:
    """Return the averages of whole networks."""
    for panel in panels:
        means = network_means(panel)
        for curve in panel.curves:
            if curve.model.id in means:
                yield row_of(AverageRow, panel, curve, value=means[curve.model.id])


def shown(models: Sequence[Model], panels: Iterable[Panel]) -> list[Model]:
    """Return the models that have a curve in some panel, in their order."""
    present = {curve.model.id for panel in panels for curve in panel.curves}
    return [model for model in models if model.id in present]


def missing(panels: Sequence[Panel], models: Sequence[Model]) -> list[str]:
    """Say which models have no values at all, and which none of a measure.

    Measures that the same models lack stand together.
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
    notes = no_values_of(nowhere)
    for labels, names in absent.items():
        whose = ", ".join(labels) if len(labels) < len(models) else "all models"
        notes.append(f"No values of {whose}: {', '.join(names)}.")
    return notes


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
    """Say how many images, or what is counted, values are of: ``580 to 599 images``."""
    held = sorted({count for count in counts if count})
    if not held:
        raise AnalysisError("no values to draw: the models' tables hold none")
    if len(held) == 1:
        return plural(held[0], counted)
    return f"{held[0]:,} to {plural(held[-1], counted)}"


def source(panels: Sequence[Panel]) -> str:
    """Name the dataset of panels, and say how many images they are of."""
    counts = [curve.n_images for panel in panels for curve in panel.curves]
    images = images_text(counts, panels[0].counted if panels else "image")
    return f"{panels[0].dataset}, {images}"
