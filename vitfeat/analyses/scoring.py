"""How an analysis is scored: what its tables of ScoreRow hold, what it is judged by, what is drawn.

Each such analysis says this in its package; tables and figures of all of them follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase

TOKENS: Mapping[str, str] = {
    "cls": "CLS token",
    "cls_norm": "CLS token, final norm",
    "mean": "mean of spatial tokens",
    "mean_norm": "mean of spatial tokens, final norm",
}
"""Features of whole images, and what they are called."""

SPATIAL: Mapping[str, str] = {"spatial": "spatial tokens"}

HEADS = "heads"
"""What groups are called that are heads: they are drawn in every layer."""

TOGETHER = ("heat_map", "best_depth", "by_layer")
"""The figures of all scored analyses together, of each choice of models."""


class Rank(IntEnum):
    """The figures that a measure is in: of all datasets, of one, or of its details."""

    OVERVIEW = 0
    SET = 1
    DETAILS = 2


@dataclass(frozen=True)
class Measure:
    """A score of some variants, as it is drawn."""

    score: str  # in tables; with ``*`` at its end, all scores that begin so
    title: str  # on figures; ``{variant}`` and ``{rest}`` (what stands for ``*``) are filled in
    rank: Rank  # where it is drawn
    variants: str | tuple[str, ...] = "all"  # which of them: ``headline``, ``all``, or these
    # What its values are averages over, where that is not what those of the analysis are.
    counted: str = ""


@dataclass(frozen=True)
class Headline:
    """The one score that an analysis is judged by; more is better, and 1 is the most.

    Where its table holds a level of chance, :attr:`Scoring.chance` names it; for the others an
    untrained model shows what no training gives.
    """

    # score, name: in tables, and on figures; ``{variant}`` in a name is filled in.
    score: str
    name: str
    # In the order of preference; the first one that a table holds counts, else the table's first.
    features: tuple[str, ...]
    variants: tuple[str, ...] = ()  # the same of variants
    # Whether every variant is a headline of its own, in the order of `variants`.
    levels: bool = False

    def chosen_variants(self, held: Iterable[str]) -> tuple[str, ...]:
        """Return which of the variants that a table holds are headlines."""
        ordered = _preferred(self.variants, held)
        return tuple(ordered if self.levels else ordered[:1])

    def preferred_features(self, held: Iterable[str]) -> tuple[str, ...]:
        """Return the features that a table holds, those first that count where there are some."""
        return tuple(_preferred(self.features, held))


@dataclass(frozen=True)
class Scoring:
    """How an analysis is scored."""

    # title, short: of its own figures, and beside those of others.
    title: str
    short: str
    headline: Headline  # what it is judged by
    # Scores that layers are ranked by, all of which are better the greater they are; ``*`` and
    # ``[ab]`` stand for what they do in names of files. The others say something of the data, of
    # ties or of chance; of a decay less is better.
    ranked: tuple[str, ...]
    counted: str  # what its values are averages over
    measures: tuple[Measure, ...]  # what is drawn, in the order of the figures
    # Features, or variants, that a measure has a panel each of; what they are called, where that is
    # not what they are in tables.
    kinds: Mapping[str, str]
    by_variant: bool = False  # whether `kinds` are variants
    # Beginning of variants that every layer chooses for itself: no two layers need have the same.
    chosen: str = ""
    # What variants are called that have a name in tables only.
    variants: Mapping[str, str] = field(default_factory=dict)
    # Of scores, which other score of the same table says what is expected by chance.
    chance: Mapping[str, str] = field(default_factory=dict)
    # What groups are called, where there is a figure of them: categories or sequences, each in the
    # best layer of a model, or :data:`HEADS`.
    groups: str = ""
    common: bool = True  # whether panels side by side have one scale
    meaning: str = ""  # what its scores are, in a sentence below its figures
    details: str = ""  # title of the figure of details; empty where there is none
    details_meaning: str = ""  # as `meaning`, of the scores there

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures across models of each dataset."""
        more = {"details": self.details, "groups": self.groups}
        return ("by_layer", "families", "best", *(name for name, given in more.items() if given))

    def is_ranked(self, score: str) -> bool:
        """Return whether layers are ranked by a score: whether more of it is better."""
        return any(fnmatchcase(score, pattern) for pattern in self.ranked)

    def fixed(self, variant: str) -> str:
        """Return a variant, empty where every layer chooses its own."""
        return "" if self.chosen and variant.startswith(self.chosen) else variant

    def kind_named(self, kind: str) -> str:
        """Return what a kind is called on figures."""
        return self.kinds.get(kind, kind)

    def ordered_kinds(self, held: Iterable[str]) -> list[str]:
        """Return the kinds that tables hold, in the order of the figures."""
        return _preferred(tuple(self.kinds), held)

    def named(self, variant: str) -> str:
        """Return what a variant is called on figures."""
        return self.variants.get(variant, variant.replace("=", " = "))

    def headline_of(self, variant: str) -> str:
        """Return what the headline of a variant is called on figures."""
        name = self.headline.name
        if "{variant}" in name or not variant:
            return name.format(variant=variant)
        return f"{name}, {self.named(variant)}"


def _preferred(order: Sequence[str], held: Iterable[str]) -> list[str]:
    given = list(dict.fromkeys(held))
    return [one for one in order if one in given] + [one for one in given if one not in order]
