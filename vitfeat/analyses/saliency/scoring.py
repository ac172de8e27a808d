"""How the analysis ``saliency`` is scored."""

from vitfeat.analyses.scoring import HEADS, Headline, Measure, Rank, Scoring

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
