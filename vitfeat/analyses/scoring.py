"""What figures across models show of an analysis, and how it is scored, where more is better.

Each package says this once; ``vitfeat/figures/across.py`` draws from it, ``headlines.py`` ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from vitfeat.analyses.rows import ScoreRow, read_scores

TOKENS: Mapping[str, str] = {
    "cls": "CLS token",
    "cls_norm": "CLS token, final norm",
    "mean": "mean of spatial tokens",
    "mean_norm": "mean of spatial tokens, final norm",
}
"""Features of whole images, and what they are called."""

SPATIAL: Mapping[str, str] = {"spatial": "spatial tokens"}

SEED = "seed="
"""Beginning of groups that are seeds."""

HEADS = "heads"
"""What groups are called that are heads: they are drawn in every layer."""

HEAD = "head"
"""Variant of scores of single heads."""

TOGETHER = ("heat_map", "best_depth", "by_layer")
"""The figures of all scored analyses together, of each choice of models."""


class Rank(IntEnum):
    """The figures that a measure is in: of all datasets, of one, of its details, of heads alone."""

    OVERVIEW = 0
    SET = 1
    DETAILS = 2
    HEADS = 3


class Members(Enum):
    """What a value is the mean of: what notes say of means, and what bands are."""

    NONE = ("", "")
    SEEDS = ("", "from the least to the greatest seed")
    HEADS = ("Means over heads. ", "the middle half of heads")
    IMAGES = ("Means over images. ", "one standard deviation over images either way")

    @property
    def means(self) -> str:
        """A sentence, with the space behind it."""
        return str(self.value[0])

    @property
    def band(self) -> str:
        """From where to where a band reaches."""
        return str(self.value[1])


class Point(NamedTuple):
    """A value of one layer, as a row of any table says it.

    ``kind`` is which of :attr:`Curves.kinds` it is of. ``member`` is the head or seed that it is
    of alone, empty for a value of the layer. ``deviation`` is half the height of its band.
    """

    model: str
    layer: int
    score: str
    n: int
    value: float
    kind: str = ""
    features: str = ""
    variant: str = ""
    member: str = ""
    deviation: float = 0.0
    unit: str = ""


@dataclass(frozen=True)
class Measure:
    """A score of some variants, as it is drawn."""

    # In tables; with ``*`` at its end, all scores that begin so.
    score: str
    # On figures; ``{variant}`` and ``{rest}`` (what stands for ``*``) are filled in.
    title: str
    rank: Rank  # where it is drawn
    variants: str | tuple[str, ...] = "all"  # which of them: ``headline``, ``all``, or these
    # What its values are averages over, where that is not what those of the analysis are.
    counted: str = ""
    heads: bool = False  # whether it is drawn head by head
    # Whether few kinds of models have it, so that no word is lost on those without.
    rare: bool = False


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Values by layer of a table, as figures across models draw them."""

    # Of the figures; which of them one is stands behind it.
    title: str
    measures: tuple[Measure, ...]  # what is drawn, in the order of the figures
    # The figures of a dataset, by the name of their file: ``by_layer``, ``families`` (over depth),
    # ``best`` (layers), ``breakout`` (head by head), ``averages`` (of whole networks), ``details``,
    # ``groups``.
    figures: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[Path], list[Any]] = read_scores  # reads the table
    # Makes a point of a row, or nothing of one that is not drawn; not given for tables of ScoreRow.
    point: Callable[[Any], Point | None] | None = None
    suffix: str = ".csv"  # ending of the tables' names
    # Figures that no other analysis has, by the name of their file: functions of dataset, rows and
    # models, as ``module:function``. The rows are the numbers beside them.
    pictures: Mapping[str, str] = field(default_factory=dict)
    # Whether there is such a table, by the analysis' settings.
    asked: Callable[[Any], bool] = lambda _: True
    # Features, or variants, that a measure has a panel each of; what they are called, where that is
    # not what they are in tables.
    kinds: Mapping[str, str] = field(default_factory=dict)
    main_kinds: tuple[str, ...] = ()  # those of the overview, if not all
    by_variant: bool = False  # whether `kinds` are variants
    # Beginning of variants that every layer chooses for itself: no two layers need have the same.
    chosen: str = ""
    # What variants are called that have a name in tables only.
    variants: Mapping[str, str] = field(default_factory=dict)
    members: Members = Members.SEEDS  # what values are means of
    counted: str = "image"  # what its values are averages over
    # Scores that layers are ranked by, all of which are better the greater they are; ``*`` and
    # ``[ab]`` stand for what they do in names of files. The others say something of the data, of
    # ties or of chance; of a decay less is better.
    ranked: tuple[str, ...] = ()
    # Of scores, which other score of the same table says what is expected by chance.
    chance: Mapping[str, str] = field(default_factory=dict)
    by_chance: str = "chance"  # what that is called
    common: bool = True  # whether panels side by side have one scale
    log: bool = False  # whether that is logarithmic
    # Scores that are drawn against one another as averages: to the right, and upwards.
    pairs: tuple[tuple[str, str], ...] = ()
    meaning: str = ""  # what its scores are, in a sentence below its figures
    printed: str = ""  # what is set of the settings that its figures print
    # What else stands there: by the rows of each dataset, and the models' labels by id.
    footnotes: Callable[[Mapping[str, Sequence[Any]], Mapping[str, str]], Sequence[str]] = (
        lambda rows, labels: ()
    )

    @property
    def set_to(self) -> list[str]:
        """What figures say of the settings, where they do."""
        return [f"Settings: {self.printed}."] if self.printed else []

    def as_point(self, row: Any) -> Point | None:
        """Make a point of a row; nothing of one that no line is of."""
        if self.point is not None:
            return self.point(row)
        if row.group and not row.group.startswith(SEED):
            return None
        return Point(
            row.model,
            row.layer,
            row.score,
            row.n,
            row.value,
            kind=row.variant if self.by_variant else row.features,
            features=row.features,
            variant="" if self.by_variant else self.fixed(row.variant),
            member=row.group,
        )

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

    def is_asked(self, measure: Measure, variant: str, held: Iterable[str]) -> bool:
        """Return whether a measure is drawn of a variant, of those that its score has."""
        return measure.variants == "all" or variant in measure.variants


@dataclass(frozen=True)
class Headline:
    """The one score that an analysis is judged by; more is better, and 1 is the most.

    Where its table holds a level of chance, :attr:`Curves.chance` names it; for the others an
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


@dataclass(frozen=True, kw_only=True)
class Scoring(Curves):
    """How an analysis with tables of ScoreRow is scored; those of all are collected into one."""

    short: str  # its title beside those of others
    headline: Headline  # what it is judged by
    # What groups are called, where there is a figure of them: categories or sequences, each in the
    # best layer of a model, or :data:`HEADS`.
    groups: str = ""
    # Title of the figure of details; empty where there is none.
    details: str = ""
    details_meaning: str = ""  # as `meaning`, of the scores there

    def __post_init__(self) -> None:
        """Name the figures, which follow from what there is."""
        figures = {name: name for name in ("by_layer", "families", "best")}
        if self.details:
            figures["details"] = "details"
        if self.groups:
            figures["groups"] = "breakout" if self.groups == HEADS else "groups"
        object.__setattr__(self, "figures", figures)

    def as_point(self, row: ScoreRow) -> Point | None:
        """Make a point of a row; heads are of their features, of which each is a measure."""
        if self.groups == HEADS and (row.variant, row.score) == (HEAD, self.headline.score):
            return Point(
                row.model,
                row.layer,
                row.features,
                row.n,
                row.value,
                "",
                row.features,
                "",
                row.group,
            )
        return super().as_point(row)

    def is_asked(self, measure: Measure, variant: str, held: Iterable[str]) -> bool:
        """Return whether a measure is drawn of a variant, of those that its score has."""
        if measure.variants == "headline":
            return variant in self.headline.chosen_variants(held)
        return super().is_asked(measure, variant, held)

    def headline_of(self, variant: str) -> str:
        """Return what the headline of a variant is called on figures."""
        name = self.headline.name
        if "{variant}" in name or not variant:
            return name.format(variant=variant)
        return f"{name}, {self.named(variant)}"


def _preferred(order: Sequence[str], held: Iterable[str]) -> list[str]:
    given = list(dict.fromkeys(held))
    return [key for key in order if key in given] + [key for key in given if key not in order]
