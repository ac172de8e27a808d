"""The most attended tokens against annotated masks."""

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
from vitfeat.analyses.needs import READ_NUMBERS, masks_mb, minutes
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.analyses.scoring import HEADS, Headline, Measure, Rank, Scoring

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

_QUERIES = {
    "attn_cls": "CLS query",
    "attn_mean": "mean of spatial queries",
    "attn_centre": "centre query",
}

SCORING = Scoring(
    title="Attention and annotated objects",
    short="Saliency",
    headline=Headline("iou", "IoU", tuple(_QUERIES), ("best_head", "merged", "best_per_image")),
    ranked=("iou",),
    counted="image",
    measures=(
        Measure("iou", "IoU, best head", Rank.OVERVIEW, ("best_head",)),
        Measure("iou", "IoU, heads merged", Rank.SET, ("merged",)),
        Measure("iou", "IoU, best head of each image", Rank.DETAILS, ("best_per_image",)),
        Measure("iou", "IoU, merged as in the paper", Rank.DETAILS, ("merged_paper",)),
        *(Measure(query, f"IoU, {name}", Rank.HEADS) for query, name in _QUERIES.items()),
    ),
    kinds=_QUERIES,
    variants={
        "best_head": "best head",
        "merged": "heads merged",
        "best_per_image": "best head of each image",
        "merged_paper": "merged as in the paper",
    },
    chance={"iou": "iou_chance"},
    groups=HEADS,
    meaning="IoU of the most attended tokens with those that lie under annotated objects. "
    "Chance: as many tokens as the best head keeps, drawn at random.",
    details="Attention and annotated objects, averaged as by the paper's code",
    details_meaning="IoU of the most attended tokens with those that lie under annotated objects.",
)


_REGION_SECONDS = 0.005


def needs(study: Study) -> Needs:
    """Return MiB for masks and a layer's scores, and minutes to decode masks and read attention."""
    shape, n = study.shape, study.n_images
    scores = n * (2 * shape.tokens + 32 * shape.heads) / 2**20
    queries = len(study.settings(SaliencySettings).queries)
    numbers = shape.depth * shape.heads * shape.tokens * queries * n
    return Needs(
        1000 + masks_mb(study.n_annotated) + int(scores),
        minutes(numbers / READ_NUMBERS + _REGION_SECONDS * study.n_annotated),
    )


def drawing_needs(study: Study) -> Needs:
    """Return MiB for the same, and minutes for a figure."""
    return Needs(needs(study).memory_mb, 30)


_INPUTS = {"store": STORE, "index": INDEX, "regions": ANNOTATIONS}
_KEPT = ("queries", "mass", "masks")

ANALYSIS = Analysis(
    "saliency",
    SaliencySettings,
    place=130,
    annotations="regions",
    jobs=(
        Job(
            "saliency",
            "job:write_saliency",
            inputs=_INPUTS,
            outputs={"out": "saliency/{dataset}/{model}.csv"},
            settings=_KEPT,
            needs=needs,
        ),
        Job(
            "saliency_masks",
            "masks_job:write_saliency_masks",
            inputs={**_INPUTS, "root": ROOT, "table": "saliency/{dataset}/{model}.csv"},
            outputs={"out": "saliency/{dataset}/{model}/masks.png"},
            settings=(*_KEPT, "images"),
            needs=drawing_needs,
            label=True,
        ),
    ),
    across=Across((SCORING,)),
)
