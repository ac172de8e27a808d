"""Figures of clustering scores across models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vitfeat.analyses.rows import ClusteringRow
from vitfeat.figures.best import best_figure, best_layers
from vitfeat.figures.curves import Curve, Panel, floors, least, missing, source
from vitfeat.figures.families import by_family
from vitfeat.figures.lines import Section, by_layer
from vitfeat.figures.models import Model
from vitfeat.text import plural

SCORES: Mapping[str, str] = {"nmi": "NMI", "ari": "ARI", "purity": "Purity"}
"""Scores in the order of the figures, and what they are called there."""

FEATURES: Mapping[str, str] = {
    "cls": "CLS token",
    "mean": "mean of spatial tokens",
    "attention_mean": "attention patterns",
}
"""Features in the order of the figures, and what they are called there."""

SHUFFLED = "shuffled labels"

OVERVIEW = ("nmi", "purity")
"""Scores of the overview of all datasets."""

BAND = "Bands: from the least to the greatest seed."


def panels(dataset: str, rows: Sequence[ClusteringRow], models: Sequence[Model]) -> list[Panel]:
    """Average scores over seeds, a panel for each score and kind of features.

    A band runs from the least to the greatest seed. Scores against shuffled labels, where there
    are some, are the baselines.

    Parameters
    ----------
    dataset
        Its name.
    rows
        Of all models.
    models
        Those to draw.

    Returns
    -------
    list
        For each score of :data:`SCORES`, the features of :data:`FEATURES` that some model has.
    """
    found: defaultdict[tuple[str, str, str, str], list[ClusteringRow]] = defaultdict(list)
    last: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        found[row.score, row.features, row.labels, row.model].append(row)
        last[row.model] = max(last[row.model], row.layer)
    held = {row.features for row in rows}

    def curves(score: str, features: str, labels: str) -> list[Curve]:
        return [
            _curve(model, given, last[model.id])
            for model in models
            if (given := found[score, features, labels, model.id])
        ]

    return [
        Panel(
            dataset,
            f"{score}/{features}",
            f"{SCORES[score]}, {FEATURES[features]}",
            "",
            curves(score, features, "true"),
            curves(score, features, "shuffled"),
            SHUFFLED,
            floor=True,
        )
        for score in SCORES
        for features in FEATURES
        if features in held
    ]


def layers_figure(
    panels: Sequence[Panel], models: Sequence[Model], rows: Iterable[ClusteringRow]
) -> Figure:
    """Draw the scores of one dataset by layer; the area below an untrained model's is grey.

    Parameters
    ----------
    panels
        From :func:`panels`.
    models
        Those to draw.
    rows
        What the panels were made from.

    Raises
    ------
    AnalysisError
        No model has values.
    """
    return by_layer(
        [Section("", panels, _columns(panels), common=True)],
        models,
        title="Clusters and classes by layer",
        note=f"{source(panels)}. {kmeans(rows)}; layers counted from 0.",
        band=BAND,
        remarks=_remarks(panels, models),
    )


def families_figure(
    panels: Sequence[Panel], models: Sequence[Model], rows: Iterable[ClusteringRow]
) -> Figure:
    """Draw the scores of one dataset over depth, a panel for each family.

    Parameters and errors are those of :func:`layers_figure`.
    """
    return by_family(
        panels,
        models,
        title="Clusters and classes by family",
        note=f"{source(panels)}. {kmeans(rows)}. Over depth: 0 is the first layer, 1 the last.",
        remarks=missing(panels, models),
    )


def best_layers_figure(
    panels: Sequence[Panel], models: Sequence[Model], rows: Iterable[ClusteringRow]
) -> Figure:
    """Draw the best layer of each model of one dataset.

    Parameters and errors are those of :func:`layers_figure`.
    """
    best = best_layers(panels)
    held = {one.kind for one in best}
    return best_figure(
        best,
        models,
        SCORES,
        {key: name for key, name in FEATURES.items() if key in held},
        title="Clusters and classes in the best layer",
        note=f"{source(panels)}. {kmeans(rows)}. The best layer is chosen on the same images. "
        "Strokes: from the least to the greatest seed. Depth: 0 is the first layer, 1 the last.",
        baseline=f"{SHUFFLED}, same layer",
        remarks=missing(panels, models),
    )


def overview_drawn(panels: Iterable[Panel]) -> list[Panel]:
    """Return the panels of the overview's scores."""
    return [panel for panel in panels if panel.name.partition("/")[0] in OVERVIEW]


def overview(
    panels: Mapping[str, Sequence[Panel]],
    models: Sequence[Model],
    rows: Mapping[str, Iterable[ClusteringRow]],
) -> Figure:
    """Draw the main scores of all datasets by layer.

    Parameters
    ----------
    panels
        Of each dataset, from :func:`panels`.
    models
        Those to draw.
    rows
        Of each dataset, what the panels were made from.

    Raises
    ------
    AnalysisError
        A dataset without values.
    """
    drawn = {dataset: overview_drawn(some) for dataset, some in panels.items()}
    every = [panel for some in drawn.values() for panel in some]
    return by_layer(
        [
            Section(f"{source(some)}. {kmeans(rows[dataset])}", some, _columns(some), common=True)
            for dataset, some in drawn.items()
        ],
        models,
        title="Clusters and classes by layer",
        note="Layers counted from 0.",
        band=BAND,
        remarks=_remarks(every, models),
    )


def kmeans(rows: Iterable[ClusteringRow]) -> str:
    """Say how many clusters k-means had, and how many seeds scores are averaged over."""
    found = {(row.n_clusters, row.seed) for row in rows}
    clusters = ", ".join(str(count) for count in sorted({count for count, _ in found}))
    seeds = len({seed for _, seed in found})
    over = "one seed" if seeds == 1 else f"means over {plural(seeds, 'seed')}"
    return f"k-means with k = {clusters}, {over}"


def _remarks(panels: Sequence[Panel], models: Sequence[Model]) -> list[str]:
    return floors(panels) + missing(panels, models)


def _columns(panels: Sequence[Panel]) -> int:
    return len({panel.name.partition("/")[2] for panel in panels}) or 1


def _curve(model: Model, rows: Sequence[ClusteringRow], last: int) -> Curve:
    seeds: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        seeds[row.layer].append(row.value)
    layers = tuple(sorted(seeds))
    mean, low, high = (
        np.array([part(seeds[layer]) for layer in layers]) for part in (np.mean, np.min, np.max)
    )
    return Curve(model, layers, mean, low, high, least(row.n_images for row in rows), last)
