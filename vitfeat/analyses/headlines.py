"""The best layers by every score, and by the headline of each analysis."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.errors import AnalysisError


class BestScore(NamedTuple):
    """The best layer of a model by one score; the earliest of equal ones.

    ``depth`` is the layer over the last layer of the model's table, ``n`` what ``value`` is an
    average over. ``variant`` is that of the layer where layers choose their own.
    """

    task: str
    dataset: str
    model: str
    features: str
    variant: str
    score: str
    layer: int
    depth: float
    value: float
    n: int


@dataclass(frozen=True)
class Column:
    """A headline on a dataset, as tables name it, with the features that models should have."""

    task: str
    dataset: str
    score: str
    variant: str
    features: str


def collect(rows: Iterable[ScoreRow]) -> Iterator[ScoreRow]:
    """Leave out what is of single categories, objects, queries, heads or seeds."""
    return (row for row in rows if not row.group)


def last_layers(rows: Iterable[ScoreRow]) -> dict[tuple[str, str, str], int]:
    """Return the last layer by task, dataset and model, which depth is measured by."""
    last: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        key = row.task, row.dataset, row.model
        last[key] = max(last[key], row.layer)
    return last


def best(rows: Sequence[ScoreRow]) -> list[BestScore]:
    """Find the best layer of each analysis, dataset, model, features, variant and score.

    The layer of the greatest value, the earliest of equal ones; NaN is no value, and what has none
    at all is left out, as are scores that do not rank layers. The layer is chosen on the images
    that the value is of, so it flatters a little.
    """
    rows = list(collect(rows))
    last = last_layers(rows)
    best_rows: dict[tuple[str, ...], ScoreRow | None] = {}
    seen = set()
    for row in rows:
        scoring = scored()[row.task]
        if not scoring.is_ranked(row.score):
            continue
        variant = scoring.fixed(row.variant)
        key = (row.task, row.dataset, row.model, row.features, variant, row.score)
        if (key, row.layer) in seen:
            raise AnalysisError(
                f"{row.task} of {row.model} on {row.dataset} has two values of {row.score} "
                f"({row.features}, {row.variant or 'no variant'}) in layer {row.layer}: compute "
                "its table again"
            )
        seen.add((key, row.layer))
        held = best_rows.setdefault(key, None)
        if math.isfinite(row.value) and (
            held is None or (row.value, -row.layer) > (held.value, -held.layer)
        ):
            best_rows[key] = row
    return [
        BestScore(
            row.task,
            row.dataset,
            row.model,
            row.features,
            row.variant,
            row.score,
            row.layer,
            row.layer / max(last[row.task, row.dataset, row.model], 1),
            row.value,
            row.n,
        )
        for row in best_rows.values()
        if row is not None
    ]


def headline_columns(rows: Iterable[ScoreRow] | Iterable[BestScore]) -> list[Column]:
    """Return the headlines that rows hold, in the order of analyses and of first appearance."""
    variants: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    features: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for row in rows:
        scoring = scored()[row.task]
        if row.score == scoring.headline.score:
            variant = scoring.fixed(row.variant)
            variants[row.task, row.dataset][variant] = None
            features[row.task, row.dataset, variant][row.features] = None
    columns = []
    for task, headline in ((task, scoring.headline) for task, scoring in scored().items()):
        for (of, dataset), held in variants.items():
            if of == task:
                for variant in headline.chosen_variants(held):
                    kinds = headline.preferred_features(features[task, dataset, variant])
                    columns.append(Column(task, dataset, headline.score, variant, kinds[0]))
    return columns


def headline_rows(
    found: Iterable[BestScore], columns: Sequence[Column]
) -> list[dict[str, BestScore]]:
    """Return the best layer of every model by each headline: of each column, rows by model.

    A model that lacks a column's features, as one without CLS token does, has those of the others
    that come first in the order of preference. Models without a value are absent.
    """
    cells: defaultdict[tuple[str, str, str, str], dict[str, dict[str, BestScore]]]
    cells = defaultdict(lambda: defaultdict(dict))
    for row in found:
        key = row.task, row.dataset, row.score, scored()[row.task].fixed(row.variant)
        cells[key][row.model][row.features] = row
    by_model = []
    for column in columns:
        models = cells[column.task, column.dataset, column.score, column.variant]
        headline = scored()[column.task].headline
        by_model.append(
            {model: kinds[headline.preferred_features(kinds)[0]] for model, kinds in models.items()}
        )
    return by_model
