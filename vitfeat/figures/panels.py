"""What figures of tasks draw by layer: tables as panels of curves, panels as rows of numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitfeat.analyses.headlines import last_layers
from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.figures.best import best_layers
from vitfeat.figures.curves import Curve, Panel, least
from vitfeat.figures.measures import Series, kind
from vitfeat.figures.models import Model

SEED = "seed="
"""Beginning of groups that are seeds, which bands are over."""


BY_CHANCE = "chance"
"""What baselines are called."""


@dataclass(frozen=True, eq=False)
class ScorePanel:
    """A panel, and which score of which task it is of.

    Attributes
    ----------
    task, features, variant, score
        As in tables; the variant is empty where every layer chooses its own.
    panel
        Its name is ``score variant/kind``, which figures of best layers split.
    """

    task: str
    features: str
    variant: str
    score: str
    panel: Panel


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


def score_panels(
    task: str,
    dataset: str,
    rows: Iterable[ScoreRow],
    models: Sequence[Model],
    wanted: Sequence[Series],
    kinds: Sequence[str],
) -> list[ScorePanel]:
    """Put the scores of one dataset together, a panel for each score and kind.

    A band runs from the least to the greatest seed, where groups are seeds.

    Parameters
    ----------
    task, dataset
        Their names.
    rows
        Of all models, of this task and dataset.
    models
        Those to draw.
    wanted, kinds
        From :func:`vitfeat.figures.measures.series` and ``kinds``: those to draw.
    """
    drawn = scored()[task]
    rows = list(rows)
    last = last_layers(rows)
    whole: defaultdict[tuple[str, ...], dict[int, ScoreRow]] = defaultdict(dict)
    seeds: defaultdict[tuple[str, ...], dict[int, list[float]]] = defaultdict(dict)
    for row in rows:
        variant = "" if drawn.by_variant else drawn.fixed(row.variant)
        key = row.score, variant, kind(task, row), row.model
        if not row.group:
            whole[key][row.layer] = row
        elif row.group.startswith(SEED):
            seeds[key].setdefault(row.layer, []).append(row.value)
    made = []
    for one in wanted:
        for place in kinds:
            keys = {m.id: (one.score, one.variant, place, m.id) for m in models}
            held = [model for model in models if keys[model.id] in whole]
            curves = [
                _curve(
                    model,
                    whole[keys[model.id]],
                    seeds.get(keys[model.id], {}),
                    last[task, dataset, model.id],
                )
                for model in held
            ]
            chance = drawn.chance.get(one.score, "")
            by_chance = {m.id: (chance, one.variant, place, m.id) for m in models}
            baselines = [
                _curve(m, whole[by_chance[m.id]], {}, last[task, dataset, m.id])
                for m in held
                if by_chance[m.id] in whole
            ]
            features = next((r.features for m in held for r in whole[keys[m.id]].values()), "")
            made.append(
                ScorePanel(
                    task,
                    features,
                    place if drawn.by_variant else one.variant,
                    one.score,
                    Panel(
                        dataset,
                        f"{one.key}/{place}",
                        one.title if len(kinds) == 1 else f"{one.title}, {drawn.kind_named(place)}",
                        "",
                        curves,
                        baselines,
                        BY_CHANCE if baselines else "",
                        floor=drawn.is_ranked(one.score),
                        counted=one.counted,
                    ),
                )
            )
    return made


def points(panels: Iterable[ScorePanel]) -> Iterator[ScorePoint]:
    """Return what panels draw, as rows of a table."""
    for of in panels:
        for curve in of.panel.curves:
            for place in range(len(curve.layers)):
                yield _point(of, curve, place)


def best_points(panels: Iterable[ScorePanel]) -> Iterator[ScorePoint]:
    """Return the best layer of every curve, as rows of a table."""
    for of in panels:
        for one in best_layers([of.panel]):
            yield _point(of, one.curve, one.place)


def _point(of: ScorePanel, curve: Curve, place: int) -> ScorePoint:
    depth, value, low, high = (
        float(part[place]) for part in (curve.depth, curve.values, curve.low, curve.high)
    )
    layer = curve.layers[place]
    expected = (
        float(one.values[one.layers.index(layer)])
        for one in of.panel.baselines
        if one.model == curve.model and layer in one.layers
    )
    return ScorePoint(
        of.task,
        of.panel.dataset,
        curve.model.id,
        of.features,
        of.variant,
        of.score,
        layer,
        depth,
        curve.n_images,
        value,
        low,
        high,
        next(expected, np.nan),
    )


def _curve(
    model: Model, rows: Mapping[int, ScoreRow], seeds: Mapping[int, Sequence[float]], last: int
) -> Curve:
    layers = tuple(sorted(rows))
    values = np.array([rows[layer].value for layer in layers])
    bounds = [seeds.get(layer) or [rows[layer].value] for layer in layers]
    low, high = (np.array([part(one) for one in bounds]) for part in (np.min, np.max))
    return Curve(model, layers, values, low, high, least(r.n for r in rows.values()), last)
