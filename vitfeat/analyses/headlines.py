"""The headline of each task, and the best layer by it: what all tasks together are judged by."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vitfeat.analyses.rows import TaskRow
from vitfeat.errors import AnalysisError

CHOSEN = ("penalty=",)
"""Beginnings of variants that every layer chooses for itself: no two layers need have the same."""

CHANCE: Mapping[str, str] = {
    "pck_image": "chance_image",
    "pck_point": "chance_point",
    "iou": "iou_chance",
}
"""Of scores, which other score of the same table says what is expected by chance."""

RANKED = re.compile(r"top\d+|ap|map|mp@\d+|jf_mean|[jf]_(mean|recall)|pck_\w+|nmi|ari|purity|iou")
"""Scores that layers are ranked by, all of which are better the greater they are. The others say
something of the data, of ties or of chance; of a decay less is better."""

TOKENS = ("cls", "cls_norm", "mean", "mean_norm")


@dataclass(frozen=True)
class Headline:
    """The one score that a task is judged by; more is better, and 1 is the most.

    Where its table holds a level of chance, :data:`CHANCE` names it; for the other tasks an
    untrained model shows what no training gives.

    Attributes
    ----------
    task, title
        In tables, and on figures.
    score, name
        In tables, and on figures.
    variants
        In the order of preference; the first one that a table holds counts, else the table's first.
    features
        The same of features.
    levels
        Whether every variant is a headline of its own, in the order of `variants`.
    """

    task: str
    title: str
    score: str
    name: str
    features: tuple[str, ...]
    variants: tuple[str, ...] = ()
    levels: bool = False

    def chosen_variants(self, found: Iterable[str]) -> tuple[str, ...]:
        """Return which of the variants that a table holds are headlines."""
        ordered = _preferred(self.variants, found)
        return tuple(ordered if self.levels else ordered[:1])

    def preferred_features(self, found: Iterable[str]) -> tuple[str, ...]:
        """Return the features that a table holds, those first that count where there are some."""
        return tuple(_preferred(self.features, found))


HEADLINES: Mapping[str, Headline] = {
    one.task: one
    for one in (
        Headline("knn", "k-NN", "top1", "top-1", TOKENS, ("k=20", "k=10", "k=100", "k=200")),
        Headline("linear_probe", "Linear probe", "top1", "top-1", TOKENS),
        Headline("retrieval", "Retrieval", "map", "mAP", TOKENS, ("medium", "hard", "easy")),
        Headline("video", "Video objects", "jf_mean", "J&F", ("spatial",)),
        Headline(
            "keypoints", "Keypoints", "pck_image", "PCK", ("spatial",), ("0.1", "0.05", "0.01")
        ),
        Headline("regions", "Regions", "nmi", "NMI", ("regions",), ("object", "part"), levels=True),
        Headline(
            "saliency",
            "Saliency",
            "iou",
            "IoU",
            ("attn_cls", "attn_mean", "attn_centre"),
            ("best_head", "merged", "best_per_image"),
        ),
    )
}
"""By task, in the order of the figures."""


class BestTaskRow(NamedTuple):
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
    """A headline on a dataset; features are those that its models should have.

    Attributes
    ----------
    task, dataset, score, variant, features
        As in tables; the variant is empty where layers choose their own.
    """

    task: str
    dataset: str
    score: str
    variant: str
    features: str


def collect(rows: Iterable[TaskRow]) -> Iterator[TaskRow]:
    """Leave out what is of single categories, objects, queries, heads or seeds.

    Parameters
    ----------
    rows
        Of any tasks, datasets and models.
    """
    return (row for row in rows if not row.group)


def is_ranked(score: str) -> bool:
    """Return whether layers are ranked by a score: whether more of it is better."""
    return RANKED.fullmatch(score) is not None


def fixed_variant(variant: str) -> str:
    """Return a variant, empty where every layer chooses its own."""
    return "" if variant.startswith(CHOSEN) else variant


def last_layers(rows: Iterable[TaskRow]) -> dict[tuple[str, str, str], int]:
    """Return the last layer by task, dataset and model, which depth is measured by."""
    last: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        key = row.task, row.dataset, row.model
        last[key] = max(last[key], row.layer)
    return last


def best(rows: Sequence[TaskRow]) -> list[BestTaskRow]:
    """Find the best layer of each task, dataset, model, features, variant and score.

    The layer of the greatest value, the earliest of equal ones; NaN is no value, and what has none
    at all is left out, as are scores that :data:`RANKED` does not name. The layer is chosen on the
    images that the value is of, so it flatters a little.

    Parameters
    ----------
    rows
        Of any tasks, datasets and models; those of single groups are passed over.

    Returns
    -------
    list
        In the order that they first appear in.

    Raises
    ------
    AnalysisError
        A layer has two values of the same.
    """
    rows = list(collect(rows))
    last = last_layers(rows)
    found: dict[tuple[str, ...], TaskRow | None] = {}
    seen = set()
    for row in rows:
        if not is_ranked(row.score):
            continue
        variant = fixed_variant(row.variant)
        key = (row.task, row.dataset, row.model, row.features, variant, row.score)
        if (key, row.layer) in seen:
            raise AnalysisError(
                f"{row.task} of {row.model} on {row.dataset} has two values of {row.score} "
                f"({row.features}, {row.variant or 'no variant'}) in layer {row.layer}: compute "
                "its table again"
            )
        seen.add((key, row.layer))
        held = found.setdefault(key, None)
        if math.isfinite(row.value) and (
            held is None or (row.value, -row.layer) > (held.value, -held.layer)
        ):
            found[key] = row
    return [
        BestTaskRow(
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
        for row in found.values()
        if row is not None
    ]


def headline_columns(rows: Iterable[TaskRow] | Iterable[BestTaskRow]) -> list[Column]:
    """Return the headlines that rows hold: tasks in their order, datasets as they first appear.

    Parameters
    ----------
    rows
        Of any tasks, datasets and models.
    """
    variants: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    features: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for row in rows:
        headline = HEADLINES.get(row.task)
        if headline is not None and row.score == headline.score:
            variant = fixed_variant(row.variant)
            variants[row.task, row.dataset][variant] = None
            features[row.task, row.dataset, variant][row.features] = None
    columns = []
    for task, headline in HEADLINES.items():
        for (of, dataset), held in variants.items():
            if of == task:
                for variant in headline.chosen_variants(held):
                    kinds = headline.preferred_features(features[task, dataset, variant])
                    columns.append(Column(task, dataset, headline.score, variant, kinds[0]))
    return columns


def headline_rows(
    found: Iterable[BestTaskRow], columns: Sequence[Column]
) -> list[dict[str, BestTaskRow]]:
    """Return the best layer of every model by each headline.

    A model that lacks a column's features, as one without CLS token does, has those of the others
    that come first in the order of preference.

    Parameters
    ----------
    found
        From :func:`best`.
    columns
        From :func:`headline_columns`.

    Returns
    -------
    list
        Of each column, rows by model; models without a value are absent.
    """
    cells: defaultdict[tuple[str, str, str, str], dict[str, dict[str, BestTaskRow]]]
    cells = defaultdict(lambda: defaultdict(dict))
    for row in found:
        key = row.task, row.dataset, row.score, fixed_variant(row.variant)
        cells[key][row.model][row.features] = row
    made = []
    for column in columns:
        models = cells[column.task, column.dataset, column.score, column.variant]
        headline = HEADLINES[column.task]
        made.append(
            {model: kinds[headline.preferred_features(kinds)[0]] for model, kinds in models.items()}
        )
    return made


def _preferred(order: Sequence[str], found: Iterable[str]) -> list[str]:
    held = list(dict.fromkeys(found))
    return [one for one in order if one in held] + [one for one in held if one not in order]
