"""Which scores of the tables of an analysis are drawn, and what they are called there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vitfeat.analyses.registry import scored
from vitfeat.analyses.rows import ScoreRow
from vitfeat.analyses.scoring import Measure, Rank, Scoring


@dataclass(frozen=True)
class Series:
    """A score with its variant, as panels and tables of numbers name it.

    Attributes
    ----------
    score, variant
        As in tables; the variant is empty where it is the kind.
    title, rank, counted
        As in :class:`vitfeat.analyses.scoring.Measure`, filled in.
    """

    score: str
    variant: str
    title: str
    rank: Rank
    counted: str

    @property
    def key(self) -> str:
        """Name without slashes, for names of panels."""
        return f"{self.score} {self.variant}".strip()


def series(task: str, rows: Iterable[ScoreRow]) -> list[Series]:
    """Return what there is to draw of a task, in the order of its figures.

    Parameters
    ----------
    task
        Its key.
    rows
        Of the task; those of single groups do not count.
    """
    drawn = scored()[task]
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if not row.group:
            variant = "" if drawn.by_variant else drawn.fixed(row.variant)
            found.setdefault(row.score, {})[variant] = None
    made = []
    for measure in drawn.measures:
        stem = measure.score.removesuffix("*")
        several = stem != measure.score
        scores = [s for s in found if s == stem or (several and s.startswith(stem))]
        for variant in dict.fromkeys(v for score in scores for v in found[score]):
            for score in scores:
                if variant in found[score] and _asked(drawn, measure, variant, found[score]):
                    rest = score.removeprefix(stem)
                    title = measure.title.format(variant=drawn.named(variant), rest=rest)
                    counted = measure.counted or drawn.counted
                    made.append(Series(score, variant, title, measure.rank, counted))
    return made


def kinds(task: str, rows: Iterable[ScoreRow]) -> list[str]:
    """Return the kinds of features, or variants, that rows hold, in the order of the figures.

    Parameters
    ----------
    task
        Its key.
    rows
        Of the task.
    """
    return scored()[task].ordered_kinds(kind(task, row) for row in rows)


def kind(task: str, row: ScoreRow) -> str:
    """Return which kind a row is of: its features, or its variant."""
    return row.variant if scored()[task].by_variant else row.features


def _asked(scoring: Scoring, measure: Measure, variant: str, found: Iterable[str]) -> bool:
    if measure.variants == "headline":
        return variant in scoring.headline.chosen_variants(found)
    return measure.variants == "all" or variant in measure.variants
