"""What the figures of CKA draw: values by pair of models, put together from tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.rows import CkaRow, SimilarityRow
from vitfeat.errors import AnalysisError

T = TypeVar("T", str, int)

TOKEN_NAMES = {
    "cls": "CLS token",
    "mean": "mean of spatial tokens",
    "spatial": "spatial tokens",
    "all": "all tokens",
}
"""Token kinds in the order of the figures, and what they are called there."""


@dataclass(frozen=True)
class Similarity:
    """CKA between models on one dataset, for one token kind."""

    dataset: str
    tokens: str
    estimator: str
    n_images: int
    layers: Mapping[str, tuple[int, ...]]  # of each model, the layers' numbers in ascending order
    # Of a pair of models (a, b), CKA as (layer of a, layer of b). One order of a pair is enough.
    values: Mapping[tuple[str, str], NDArray[np.float64]]
    # Models that lack these tokens, so that others of theirs stand in.
    stand_ins: frozenset[str] = frozenset()

    def panel(self, a: str, b: str) -> NDArray[np.float64] | None:
        """CKA as (layer of a, layer of b), from whichever order is there; None from neither."""
        if (a, b) in self.values:
            return self.values[a, b]
        return self.values[b, a].T if (b, a) in self.values else None


class DrawnCka(NamedTuple):
    """A value in a figure of CKA, as the table beside it has it."""

    dataset: str
    tokens: str
    estimator: str
    n_images: int
    model_a: str
    layer_a: int
    model_b: str
    layer_b: int
    cka: float


def drawn_rows(
    blocks: Iterable[Similarity], models: Iterable[str], *, last: bool = False
) -> Iterator[DrawnCka]:
    """Return the values that a figure shows, each pair of models once."""
    shown = set(models)
    for one in blocks:
        for (a, b), values in one.values.items():
            if not {a, b} <= shown:
                continue
            for (i, j), value in np.ndenumerate(values):
                if not last or (i, j) == (values.shape[0] - 1, values.shape[1] - 1):
                    yield DrawnCka(
                        one.dataset,
                        one.tokens,
                        one.estimator,
                        one.n_images,
                        a,
                        one.layers[a][i],
                        b,
                        one.layers[b][j],
                        float(value),
                    )


def similarities(dataset: str, rows: Iterable[CkaRow]) -> list[Similarity]:
    """Put the rows of one dataset together, one result per token kind.

    They are in the order cls, mean, spatial, all; others after them.
    """
    kinds: defaultdict[str, list[CkaRow]] = defaultdict(list)
    for row in rows:
        kinds[row.tokens].append(row)
    order = [*TOKEN_NAMES, *sorted(set(kinds) - set(TOKEN_NAMES))]
    return [_similarity(dataset, kind, kinds[kind]) for kind in order if kind in kinds]


def _similarity(dataset: str, tokens: str, rows: Sequence[CkaRow]) -> Similarity:
    estimator = _only({row.estimator for row in rows}, "estimators", dataset, tokens)
    n_images = _only({row.n_images for row in rows}, "numbers of images", dataset, tokens)
    found: defaultdict[str, set[int]] = defaultdict(set)
    pairs: defaultdict[tuple[str, str], list[CkaRow]] = defaultdict(list)
    for row in rows:
        found[row.model_a].add(row.layer_a)
        found[row.model_b].add(row.layer_b)
        pairs[row.model_a, row.model_b].append(row)
    layers = {model: tuple(sorted(numbers)) for model, numbers in found.items()}
    values = {}
    for (a, b), given in pairs.items():
        cells = {(row.layer_a, row.layer_b): row.cka for row in given}
        wanted = [(i, j) for i in layers[a] for j in layers[b]]
        if len(given) != len(wanted) or set(cells) != set(wanted):
            raise AnalysisError(
                f"CKA of {a} and {b} on {dataset} ({tokens}) has {len(given)} values for "
                f"{len(wanted)} pairs of layers: compute its table again"
            )
        values[a, b] = np.array([cells[cell] for cell in wanted]).reshape(len(layers[a]), -1)
    stand_ins = stand_ins_of(rows, f"CKA tables of {dataset} ({tokens})")
    return Similarity(dataset, tokens, estimator, n_images, layers, values, stand_ins)


def stand_ins_of(rows: Iterable[CkaRow | SimilarityRow], where: str) -> frozenset[str]:
    """Return the models of rows of one token kind that others of their tokens stand in for."""
    sources: defaultdict[str, set[str]] = defaultdict(set)
    kinds = set()
    for row in rows:
        sources[row.model_a].add(row.made_from_a)
        sources[row.model_b].add(row.made_from_b)
        kinds.add(row.tokens)
    for model, made_from in sources.items():
        if len(made_from) > 1:
            raise AnalysisError(
                f"{where} mix what {model} is made from ({', '.join(sorted(made_from))}): compute "
                "all of that model again"
            )
    return frozenset(model for model, made_from in sources.items() if made_from != kinds)


def _only(found: set[T], what: str, dataset: str, tokens: str) -> T:
    if len(found) > 1:
        raise AnalysisError(
            f"CKA tables of {dataset} ({tokens}) mix {what} {sorted(map(str, found))}: draw them "
            "in figures of their own"
        )
    return found.pop()
