"""What the figures of similarity draw: last layers by measure and pair of models, from tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitfeat.analyses.rows import SimilarityRow
from vitfeat.analyses.similarity.measures import NAMES
from vitfeat.errors import AnalysisError
from vitfeat.figures.cka_values import TOKEN_NAMES, stand_ins_of
from vitfeat.figures.models import Model
from vitfeat.text import plural

TITLES: Mapping[str, str] = {
    "cka": "CKA",
    "procrustes": "Procrustes",
    "rsa": "RSA",
    "mutual_knn": "Mutual {:.0f}-NN",
    "svcca": "SVCCA, {:.4g} % of variance",
}
"""What measures are called in figures, with their setting."""


class DrawnSimilarity(NamedTuple):
    """A value in a figure of similarity, as the table beside it has it."""

    dataset: str
    tokens: str
    measure: str
    setting: float | None
    n_images: int
    model_a: str
    layer_a: int
    model_b: str
    layer_b: int
    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, eq=False)
class Compared:
    """Last layers of models on one dataset, by one measure, for one token kind.

    ``rows`` are by pair of models (a, b), one order of a pair being enough; ``stand_ins`` lack
    these tokens, so that others of theirs stand in.
    """

    dataset: str
    tokens: str
    measure: str
    setting: float | None
    n_images: int
    rows: Mapping[tuple[str, str], SimilarityRow]
    stand_ins: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The measure's name in figures."""
        # Shares are shown in percent.
        setting = 100 * (self.setting or 0) if self.measure == "svcca" else self.setting
        return TITLES[self.measure].format(setting)

    @property
    def note(self) -> str:
        """Tokens, dataset and number of images."""
        kind = TOKEN_NAMES.get(self.tokens, self.tokens)
        return f"{kind}; {self.dataset}, {plural(self.n_images, 'image')}"

    def row(self, a: str, b: str) -> SimilarityRow | None:
        """Row of a pair in whichever order it is there; None where it is not."""
        return self.rows.get((a, b), self.rows.get((b, a)))

    def value(self, a: str, b: str) -> np.float64 | None:
        """Similarity of a pair; None where it was not computed."""
        row = self.row(a, b)
        return None if row is None else np.float64(row.value)

    def matrix(self, models: Sequence[Model]) -> NDArray[np.float64]:
        """Similarity of all models with one another, NaN where there is none."""
        cells = [[self.value(a.id, b.id) for b in models] for a in models]
        return np.array(cells, dtype=np.float64).reshape(len(models), len(models))

    def usable(self, models: Sequence[Model]) -> list[Model]:
        """Models that have a similarity with themselves and all others that have one."""
        held = list(models)
        while held:
            missing = np.isnan(self.matrix(held)).sum(axis=1)
            if not missing.any():
                break
            # The one that lacks most: a model without values has none with any other.
            del held[int(missing.argmax())]
        return held

    def drawn(self, models: Iterable[str]) -> Iterator[DrawnSimilarity]:
        """Return the values of some models, each pair once, as rows of a table."""
        about = self.dataset, self.tokens, self.measure, self.setting, self.n_images
        shown = set(models)
        for (a, b), row in self.rows.items():
            if {a, b} <= shown:
                ends = row.value, row.low, row.high, row.confidence
                yield DrawnSimilarity(*about, a, row.layer_a, b, row.layer_b, *ends)


def compared(dataset: str, rows: Iterable[SimilarityRow]) -> list[Compared]:
    """Put the last layers of rows together, by token kind and measure in their order."""
    groups: defaultdict[tuple[str, str], list[SimilarityRow]] = defaultdict(list)
    for row in rows:
        groups[row.tokens, row.measure].append(row)
    return [
        _compared(dataset, groups[kind, measure])
        for kind in TOKEN_NAMES
        for measure in NAMES
        if (kind, measure) in groups
    ]


def _compared(dataset: str, rows: Sequence[SimilarityRow]) -> Compared:
    first = rows[0]
    where = f"{first.measure} of {dataset} ({first.tokens})"
    for what in ("setting", "n_images", "confidence"):
        if len(found := {getattr(row, what) for row in rows}) > 1:
            raise AnalysisError(
                f"tables of {where} mix {what.replace('_', ' ')} {sorted(map(str, found))}: "
                "compute all of them again"
            )
    last: defaultdict[str, int] = defaultdict(int)
    pairs: defaultdict[tuple[str, str], list[SimilarityRow]] = defaultdict(list)
    for row in rows:
        for model, layer in ((row.model_a, row.layer_a), (row.model_b, row.layer_b)):
            last[model] = max(last[model], layer)
        pairs[row.model_a, row.model_b].append(row)
    chosen = {}
    for (a, b), given in pairs.items():
        ends = [row for row in given if (row.layer_a, row.layer_b) == (last[a], last[b])]
        if len(ends) != 1:
            raise AnalysisError(
                f"{where} of {a} and {b} has {len(ends)} values for the last layers: compute its "
                "table again"
            )
        chosen[a, b] = ends[0]
    about = dataset, first.tokens, first.measure, first.setting, first.n_images
    return Compared(*about, chosen, stand_ins_of(rows, f"tables of {where}"))
