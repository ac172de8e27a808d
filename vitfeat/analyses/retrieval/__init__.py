"""Images of the same landmark, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import (
    ANNOTATIONS,
    INDEX,
    ROOT,
    STORE,
    Across,
    Analysis,
    Job,
    Needs,
)
from vitfeat.analyses.needs import CORE_FLOPS, TORCH_MB, minutes, reading_seconds
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.analyses.scoring import TOKENS, Headline, Measure, Rank, Scoring

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

SCORING = Scoring(
    title="Retrieval",
    short="Retrieval",
    headline=Headline("map", "mAP", tuple(TOKENS), ("medium", "hard", "easy")),
    ranked=("map", "mp@*", "ap"),
    counted="query image",
    measures=(
        Measure("map", "mAP, {variant}", Rank.OVERVIEW, ("medium", "hard")),
        Measure("map", "mAP, {variant}", Rank.SET, ("easy",)),
        Measure("mp@*", "mP@{rest}, {variant}", Rank.DETAILS, ("medium", "hard")),
    ),
    kinds=TOKENS,
    meaning="mAP: mean average precision of the queries' rankings. Medium: easy and hard "
    "images are to be found; hard: hard ones alone; easy: easy ones alone.",
    details="Retrieval: mean precision among the first images",
    details_meaning="mP@k: mean share of positive images among the first k. Medium: easy and "
    "hard images are positive; hard: hard ones alone.",
)


# As many as revisited Oxford and Paris have.
_QUERIES = 70
# A query's place for an image in a ranking of a large database.
_SORTING = 5e-7


def needs(study: Study) -> Needs:
    """Return MiB for similarities (1 GiB at most) and blocks of descriptors, minutes to rank."""
    features, shape = study.settings(RetrievalSettings).features, study.shape
    n = study.n_images
    similarities = min(_QUERIES * 4 * n / 2**20, 1024)
    arithmetic = _QUERIES * n * (2 * shape.width / CORE_FLOPS + _SORTING) * len(features)
    reading = study.enlarged * reading_seconds(shape, n, features)
    return Needs(
        # A query's ranking; blocks are bound by 256 MiB and copied.
        TORCH_MB + int(similarities + 64 * n / 2**20) + 1024,
        minutes(shape.depth * (arithmetic + reading)),
    )


_INPUTS = {"store": STORE, "relevance": ANNOTATIONS}

ANALYSIS = Analysis(
    "retrieval",
    RetrievalSettings,
    place=90,
    vectors=True,
    annotations="relevance",
    jobs=(
        Job(
            "retrieval",
            "job:write_retrieval",
            inputs=_INPUTS,
            outputs={"out": "retrieval/{dataset}/{model}.csv"},
            settings=("features", "final_norm", "ranks"),
            needs=needs,
        ),
        Job(
            "ranking",
            "ranking_job:write_ranking",
            inputs={**_INPUTS, "index": INDEX, "root": ROOT},
            outputs={"out": "retrieval/{dataset}/{model}/ranking.png"},
            settings=("features", "final_norm"),
            first_of=frozenset({"features"}),
            needs=needs,
            label=True,
        ),
    ),
    across=Across((SCORING,)),
)
