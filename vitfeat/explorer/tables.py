"""Tables of results as the explorer's page reads them: matrices and curves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from vitfeat.analyses.rows import (
    read_attention,
    read_cka,
    read_residual_norms,
    read_scores,
)
from vitfeat.data.annotations import RegionRow, read_annotations
from vitfeat.errors import VitfeatError
from vitfeat.explorer.catalog import NAME, Results
from vitfeat.store.reader import FeatureStore


def cka(results: Results, dataset: str, tokens: str) -> dict[str, Any]:
    """Return CKA of all pairs of models whose tables are there.

    Returns
    -------
    dict
        ``estimators``: by name, a list of pairs: ``a``, ``b`` (models), ``layers_a``, ``layers_b``
        and ``values`` (layer of a, layer of b), None where a value is NaN; ``remarks``: what could
        not be read.
    """
    estimators: dict[str, list[dict[str, Any]]] = defaultdict(list)
    remarks = []
    for path in sorted((results.folder / "cka" / dataset / tokens).glob("*--*.csv")):
        try:
            rows = read_cka(path)
        except VitfeatError as error:
            remarks.append(str(error))
            continue
        for estimator in dict.fromkeys(row.estimator for row in rows):
            of_it = [row for row in rows if row.estimator == estimator]
            layers_a = sorted({row.layer_a for row in of_it})
            layers_b = sorted({row.layer_b for row in of_it})
            found = {(row.layer_a, row.layer_b): row.cka for row in of_it}
            values = [[_number(found.get((a, b))) for b in layers_b] for a in layers_a]
            estimators[estimator].append(
                {
                    "a": of_it[0].model_a,
                    "b": of_it[0].model_b,
                    "layers_a": layers_a,
                    "layers_b": layers_b,
                    "values": values,
                }
            )
    return {"estimators": estimators, "remarks": remarks}


class Score(NamedTuple):
    """A value of a curve: one layer of one model in one score of an analysis."""

    analysis: str
    dataset: str
    score: str
    model: str
    layer: int
    value: float


def scores(results: Results) -> dict[str, Any]:
    """Return the scores of whole datasets by layer, of every analysis that has tables.

    Returns
    -------
    dict
        ``curves``: a list of ``analysis``, ``dataset``, ``score``, ``model``, ``layers`` and
        ``values``, None where a value is NaN; ``remarks``: what could not be read.
    """
    remarks: list[str] = []
    curves: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    for folder in sorted(path for path in results.folder.iterdir() if path.is_dir()):
        if folder.name in _NOT_SCORED:
            continue
        for path in sorted(folder.glob("*/*.csv")):
            if not NAME.fullmatch(path.parent.name) or path.parent.name == "sets":
                continue
            try:
                found = list(_scores_of(folder.name, path))
            except VitfeatError as error:
                remarks.append(str(error))
                continue
            for row in found:
                curves[row[:4]][row.layer] = row.value
    return {
        "curves": [
            {
                "analysis": key[0],
                "dataset": key[1],
                "score": key[2],
                "model": key[3],
                "layers": sorted(values),
                "values": [_number(values[layer]) for layer in sorted(values)],
            }
            for key, values in curves.items()
        ],
        "remarks": remarks,
    }


_NOT_SCORED = frozenset(
    {
        "attention_maps",
        "cka",
        "datasets",
        "demo",
        "features",
        "logs",
        "similarity",
        "tasks",
    }
)


def _scores_of(analysis: str, path: Path) -> Iterator[Score]:
    """Read the scores in a table of a model; those of layers that have several are averaged."""
    if path.name.endswith(".cka.csv"):
        return
    reader = _READERS.get(analysis, _scored)
    groups: dict[tuple[str, str, str, int], list[float]] = defaultdict(list)
    for dataset, score, model, layer, value in reader(path):
        groups[dataset, score, model, layer].append(value)
    for (dataset, score, model, layer), values in groups.items():
        yield Score(analysis, dataset, score, model, layer, fmean(values))


_Values = Iterator[tuple[str, str, str, int, float]]


def _scored(path: Path) -> _Values:
    for row in read_scores(path):
        if not row.group:
            name = " · ".join(part for part in (row.score, row.features, row.variant) if part)
            yield row.dataset, _chosen(name), row.model, row.layer, row.value


def _chosen(name: str) -> str:
    """Cut what a score's setting was chosen to be: of a curve it differs from layer to layer."""
    return name.partition(" · penalty=")[0]


def _attention_scores(path: Path) -> _Values:
    for row in read_attention(path):
        name = f"{row.metric} · {row.unit}, mean of heads"
        yield row.dataset, name, row.model, row.layer, row.mean


def _residual_scores(path: Path) -> _Values:
    for row in read_residual_norms(path):
        name = f"{row.branch} branch · {row.ratio}, skip / branch norm"
        yield row.dataset, name, row.model, row.layer, row.mean


_READERS: dict[str, Callable[[Path], _Values]] = {
    "attention": _attention_scores,
    "residual": _residual_scores,
}


def heads(results: Results, dataset: str, model: str) -> dict[str, Any]:
    """Return the attention metrics of every layer and head of a model, averaged over images.

    Returns
    -------
    dict
        ``metrics``: a list of ``metric``, ``unit``, and ``values`` (layer, head), None where there
        is none; ``layers``.
    """
    path = results.folder / "attention" / dataset / f"{model}.csv"
    rows = [row for row in read_attention(path) if row.head is not None]
    layers = sorted({row.layer for row in rows})
    n_heads = 1 + max((row.head for row in rows if row.head is not None), default=-1)
    metrics = {}
    for row in rows:
        if row.metric not in metrics:
            empty: list[list[float | None]] = [[None] * n_heads for _ in layers]
            metrics[row.metric] = {"metric": row.metric, "unit": row.unit, "values": empty}
        assert row.head is not None
        metrics[row.metric]["values"][layers.index(row.layer)][row.head] = _number(row.mean)  # type: ignore[index]
    return {"layers": layers, "metrics": list(metrics.values())}


def regions(results: Results, dataset: str, store: FeatureStore) -> dict[str, Any]:
    """Return of what images a store's regions are, and of what categories.

    Returns
    -------
    dict
        ``images``: a row of the store for each region; ``categories``: a name for each, where the
        dataset's table of regions can be read.
    """
    found: dict[str, Any] = {"images": store.rows("regions").tolist()}
    try:
        path = results.folder / "datasets" / "regions" / f"{dataset}.csv"
        rows = read_annotations(path, RegionRow)
        found["categories"] = [rows[number].name for number in store.region_numbers]
    except (VitfeatError, OSError, IndexError):
        return found
    return found


def _number(value: float | None) -> float | None:
    """Return a number that JSON has, or None."""
    return value if value is not None and math.isfinite(value) else None
