"""Columns of the analyses' tables, one row a value; docs/results.md says where they stand."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vitfeat.tables import Row, read_table

if TYPE_CHECKING:
    from vitfeat.store.reader import FeatureStore


class AttentionRow(NamedTuple):
    """An attention metric of one head, over images.

    ``head`` is None for metrics of a layer as a whole. ``null_rows`` says what became of spatial
    queries that attend to no spatial token in this metric, ``n_null`` how many an image has of
    them on average. ``n_images`` counts the images that the value exists for; ``deviation`` is over
    them, ddof 1, NaN for a single one.
    """

    model: str
    dataset: str
    layer: int
    head: int | None
    metric: str
    unit: str
    null_rows: str
    n_null: float | None
    n_images: int
    mean: float
    deviation: float


class CkaRow(NamedTuple):
    """CKA of a layer of one model and a layer of another.

    ``tokens`` is the token kind that was asked for, ``made_from_a`` and ``made_from_b`` the kinds
    that the two sides really are: another one where a model lacks the tokens.
    """

    model_a: str
    layer_a: int
    model_b: str
    layer_b: int
    estimator: str
    tokens: str
    made_from_a: str
    made_from_b: str
    n_images: int
    cka: float


class SimilarityRow(NamedTuple):
    """Similarity of a layer of one model and a layer of another by one measure.

    ``measure`` is ``cka``, ``procrustes``, ``rsa``, ``mutual_knn`` or ``svcca``; ``setting`` the
    neighbours of ``mutual_knn`` and the share of the variance of ``svcca``. ``tokens``,
    ``made_from_a`` and ``made_from_b`` are as in CKA tables. ``low`` and ``high`` are the ends of
    the interval of that ``confidence``, NaN where there is none.
    """

    model_a: str
    layer_a: int
    model_b: str
    layer_b: int
    measure: str
    setting: float | None
    tokens: str
    made_from_a: str
    made_from_b: str
    n_images: int
    value: float
    low: float
    high: float
    confidence: float


class ResidualCkaRow(NamedTuple):
    """Linear CKA (debiased) of the skip input of one block against the branch of another.

    ``branch`` is ``attn`` or ``mlp``: of both the skip input and the branch output.
    """

    model: str
    dataset: str
    branch: str
    tokens: str
    layer_skip: int
    layer_branch: int
    n_images: int
    cka: float


class ResidualNormRow(NamedTuple):
    """Ratio of norms, skip input over branch output, averaged over images.

    ``ratio`` is ``cls``, ``spatial`` (Frobenius norms over all spatial tokens),
    ``spatial_tokens`` (mean over spatial tokens of the tokens' ratios) or ``all`` (Frobenius norms
    over CLS, registers and spatial tokens). ``deviation`` is over images, ddof 1. ``n_images``
    counts the images that have a ratio.
    """

    model: str
    dataset: str
    branch: str
    ratio: str
    layer: int
    n_images: int
    mean: float
    deviation: float


class ScoreRow(NamedTuple):
    """A score of one layer in a task; all tasks have tables of this form.

    ``features`` says what of the layer was used (``cls``, ``mean``, ``spatial``, ``regions``,
    ``attention``), ``variant`` the task's own settings behind the value (``k=20``, ``medium``,
    ``0.1``, ...; empty where there are none), ``score`` what the value is. ``group`` is empty for
    the dataset as a whole, else the category, object or head that the value is of. ``n`` counts
    what the value is an average over. docs/analyses/ says of each task which rows there are.
    """

    task: str
    model: str
    dataset: str
    layer: int
    features: str
    variant: str
    score: str
    group: str
    n: int
    value: float


def score_rows(analysis: str, store: FeatureStore, **known: Any) -> Callable[..., ScoreRow]:
    """Return what makes rows of a store, some columns of which are known.

    Variant and group are empty where nothing else is said.
    """
    usual = {"model": store.model, "dataset": store.path.parent.name, "variant": "", "group": ""}
    return partial(ScoreRow, **{"task": analysis, **usual, **known})


def _reader(kind: type[Row], what: str, how: str) -> Callable[[str | os.PathLike[str]], list[Row]]:
    return lambda path: read_table(path, kind, what, how)


read_attention = _reader(AttentionRow, "attention table", "vitfeat run attention")
read_cka = _reader(CkaRow, "CKA table", "vitfeat run cka")
read_similarity = _reader(SimilarityRow, "similarity table", "vitfeat run similarity")
read_residual_cka = _reader(ResidualCkaRow, "residual CKA table", "vitfeat run residual")
read_residual_norms = _reader(ResidualNormRow, "residual norm table", "vitfeat run residual")
read_scores = _reader(ScoreRow, "table of a task", "snakemake")
