"""Points of one image found in another."""

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
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.analyses.needs import minutes
from vitfeat.analyses.scoring import SPATIAL, Headline, Measure, Rank, Scoring

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

SCORING = Scoring(
    title="Keypoints found in another image",
    short="Keypoints",
    headline=Headline("pck_image", "PCK@{variant}", tuple(SPATIAL), ("0.1", "0.05", "0.01")),
    ranked=("pck_*",),
    counted="image pair",
    measures=(
        Measure("pck_image", "PCK@{variant}", Rank.OVERVIEW),
        Measure("pck_point", "PCK@{variant} per point", Rank.DETAILS, counted="point"),
    ),
    kinds=SPATIAL,
    chance={"pck_image": "chance_image", "pck_point": "chance_point"},
    groups="categories",
    common=False,
    meaning="PCK@\N{GREEK SMALL LETTER ALPHA}: share of keypoints found at most "
    "\N{GREEK SMALL LETTER ALPHA} of the longer side of the object's box away; mean over image "
    "pairs. Chance: a place drawn at random.",
    details="Keypoints found in another image, every point counted alike",
    details_meaning="PCK@\N{GREEK SMALL LETTER ALPHA}: share of all keypoints found at most "
    "\N{GREEK SMALL LETTER ALPHA} of the longer side of the object's box away. Chance: a place "
    "drawn at random.",
)


def needs(study: Study) -> Needs:
    """Return MiB for tokens, points and cosines a thread, and minutes to find points."""
    shape, threads = study.shape, study.threads
    # A millisecond for the cosines with the pixels of an image of half a megapixel.
    point = 1e-3 + 1e-9 * shape.tokens * shape.width
    # Of tokens, 1 GiB is the job's bound.
    return Needs(
        700 + 1024 + 300 + 200 * threads,
        minutes(study.n_annotated * shape.depth * point / threads),
    )


ANALYSIS = Analysis(
    "keypoints",
    KeypointSettings,
    place=110,
    annotations="points",
    jobs=(
        Job(
            "keypoints",
            "job:write_keypoints",
            inputs={"store": STORE, "index": INDEX, "points": ANNOTATIONS, "root": ROOT},
            outputs={
                "out": "keypoints/{dataset}/{model}.csv",
                "figure": "keypoints/{dataset}/{model}/matches.png",
            },
            settings=("alphas", "pairs", "seed"),
            needs=needs,
            threads=lambda study: study.node_threads,
            label=True,
        ),
    ),
    across=Across((SCORING,)),
)
