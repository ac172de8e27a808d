"""Which scores of each task are drawn, in which figure, and what they are called there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from vitfeat.analyses.headlines import HEADLINES, fixed_variant
from vitfeat.analyses.rows import TaskRow


class Rank(IntEnum):
    """The figures that a measure is in: of all datasets, of one, or of its details."""

    OVERVIEW = 0
    SET = 1
    DETAILS = 2


@dataclass(frozen=True)
class Measure:
    """A score of some variants.

    Attributes
    ----------
    score
        In tables; with ``*`` at its end, all scores that begin so.
    title
        On figures; ``{variant}`` and ``{rest}`` (what stands for ``*``) are filled in.
    rank
        Where it is drawn.
    variants
        Which of them: ``headline``, ``all``, or these.
    counted
        What its values are averages over, where that is not what those of the task are.
    """

    score: str
    title: str
    rank: Rank
    variants: str | tuple[str, ...] = "all"
    counted: str = ""


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a task.

    Attributes
    ----------
    title
        Of its figures.
    counted
        What its values are averages over.
    measures
        In the order of the figures.
    kinds
        Features, or variants, that a measure has a panel each of; what they are called.
    by_variant
        Whether `kinds` are variants.
    common
        Whether panels side by side have one scale.
    meaning
        What its scores are, in a sentence below its figures.
    details
        Title of the figure of details; empty where there is none.
    details_meaning
        As `meaning`, of the scores there.
    """

    title: str
    counted: str
    measures: tuple[Measure, ...]
    kinds: Mapping[str, str]
    by_variant: bool = False
    common: bool = True
    meaning: str = ""
    details: str = ""
    details_meaning: str = ""


TOKENS: Mapping[str, str] = {
    "cls": "CLS token",
    "cls_norm": "CLS token, final norm",
    "mean": "mean of spatial tokens",
    "mean_norm": "mean of spatial tokens, final norm",
}
SPATIAL: Mapping[str, str] = {"spatial": "spatial tokens"}

DRAWN: Mapping[str, Drawn] = {
    "knn": Drawn(
        "k-nearest neighbours",
        "test image",
        (
            Measure("top1", "Top-1, {variant}", Rank.OVERVIEW, "headline"),
            Measure("top5", "Top-5, {variant}", Rank.SET, "headline"),
            Measure("top1", "Top-1, {variant}", Rank.DETAILS),
        ),
        TOKENS,
        meaning="Top-1: share of the test images whose class has the most votes of their k nearest "
        "training images; top-5: whose class is among the five with the most.",
        details="k-nearest neighbours with other numbers of neighbours",
        details_meaning="Top-1: share of the test images whose class has the most votes of their k "
        "nearest training images.",
    ),
    "linear_probe": Drawn(
        "Linear probe",
        "test image",
        (
            Measure("top1", "Top-1", Rank.OVERVIEW),
            Measure("top5", "Top-5", Rank.SET),
        ),
        TOKENS,
        meaning="Top-1: share of the test images whose class the probe finds most likely; top-5: "
        "whose class is among its five most likely.",
    ),
    "retrieval": Drawn(
        "Retrieval",
        "query image",
        (
            Measure("map", "mAP, {variant}", Rank.OVERVIEW, ("medium", "hard")),
            Measure("map", "mAP, {variant}", Rank.SET, ("easy",)),
            Measure("mp@*", "mP@{rest}, {variant}", Rank.DETAILS, ("medium", "hard")),
        ),
        TOKENS,
        meaning="mAP: mean average precision of the queries' rankings. Medium: easy and hard "
        "images are to be found; hard: hard ones alone; easy: easy ones alone.",
        details="Retrieval: mean precision among the first images",
        details_meaning="mP@k: mean share of positive images among the first k. Medium: easy and "
        "hard images are positive; hard: hard ones alone.",
    ),
    "video": Drawn(
        "Objects followed through videos",
        "object",
        (
            Measure("jf_mean", "J&F mean", Rank.OVERVIEW),
            Measure("j_mean", "J mean (region)", Rank.OVERVIEW),
            Measure("f_mean", "F mean (boundary)", Rank.OVERVIEW),
            Measure("j_recall", "J recall", Rank.DETAILS),
            Measure("j_decay", "J decay, less is better", Rank.DETAILS),
            Measure("f_recall", "F recall", Rank.DETAILS),
            Measure("f_decay", "F decay, less is better", Rank.DETAILS),
        ),
        SPATIAL,
        meaning="J: intersection over union of the predicted and the true mask; F: F-measure of "
        "their outlines; J&F: the mean of both. Means over frames and objects.",
        details="Objects followed through videos: recall and decay",
        details_meaning="Recall: share of frames in which J (mask) or F (outline) is above 0.5; "
        "decay: mean of the first quarter of a sequence minus that of the last.",
    ),
    "keypoints": Drawn(
        "Keypoints found in another image",
        "image pair",
        (
            Measure("pck_image", "PCK@{variant}", Rank.OVERVIEW),
            Measure("pck_point", "PCK@{variant} per point", Rank.DETAILS, counted="point"),
        ),
        SPATIAL,
        common=False,
        meaning="PCK@\N{GREEK SMALL LETTER ALPHA}: share of keypoints found at most "
        "\N{GREEK SMALL LETTER ALPHA} of the longer side of the object's box away; mean over image "
        "pairs. Chance: a place drawn at random.",
        details="Keypoints found in another image, every point counted alike",
        details_meaning="PCK@\N{GREEK SMALL LETTER ALPHA}: share of all keypoints found at most "
        "\N{GREEK SMALL LETTER ALPHA} of the longer side of the object's box away. Chance: a place "
        "drawn at random.",
    ),
    "regions": Drawn(
        "Clusters of regions and their categories",
        "region",
        (
            Measure("nmi", "NMI", Rank.OVERVIEW),
            Measure("ari", "ARI", Rank.SET),
            Measure("purity", "Purity", Rank.OVERVIEW),
        ),
        {"object": "objects", "part": "parts"},
        by_variant=True,
        meaning="Clusters of k-means against the regions' categories, means over seeds; 1 is full "
        "agreement. By chance ARI is about 0; NMI and purity are more.",
    ),
    "saliency": Drawn(
        "Attention and annotated objects",
        "image",
        (
            Measure("iou", "IoU, best head", Rank.OVERVIEW, ("best_head",)),
            Measure("iou", "IoU, heads merged", Rank.SET, ("merged",)),
            Measure("iou", "IoU, best head of each image", Rank.DETAILS, ("best_per_image",)),
            Measure("iou", "IoU, merged as in the paper", Rank.DETAILS, ("merged_paper",)),
        ),
        {
            "attn_cls": "CLS query",
            "attn_mean": "mean of spatial queries",
            "attn_centre": "centre query",
        },
        meaning="IoU of the most attended tokens with those that lie under annotated objects. "
        "Chance: as many tokens as the best head keeps, drawn at random.",
        details="Attention and annotated objects, averaged as by the paper's code",
        details_meaning="IoU of the most attended tokens with those that lie under annotated "
        "objects.",
    ),
}
"""By task."""

VARIANTS: Mapping[str, str] = {
    "object": "objects",
    "part": "parts",
    "best_head": "best head",
    "merged": "heads merged",
    "best_per_image": "best head of each image",
    "merged_paper": "merged as in the paper",
}
"""What variants are called that have a name in tables only."""


@dataclass(frozen=True)
class Series:
    """A score with its variant, as panels and tables of numbers name it.

    Attributes
    ----------
    score, variant
        As in tables; the variant is empty where it is the kind.
    title, rank, counted
        As in :class:`Measure`, filled in.
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


def series(task: str, rows: Iterable[TaskRow]) -> list[Series]:
    """Return what there is to draw of a task, in the order of its figures.

    Parameters
    ----------
    task
        Its key.
    rows
        Of the task; those of single groups do not count.
    """
    drawn = DRAWN[task]
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if not row.group:
            variant = "" if drawn.by_variant else fixed_variant(row.variant)
            found.setdefault(row.score, {})[variant] = None
    made = []
    for measure in drawn.measures:
        stem = measure.score.removesuffix("*")
        several = stem != measure.score
        scores = [s for s in found if s == stem or (several and s.startswith(stem))]
        for variant in dict.fromkeys(v for score in scores for v in found[score]):
            for score in scores:
                if variant in found[score] and _asked(task, measure, variant, found[score]):
                    rest = score.removeprefix(stem)
                    title = measure.title.format(variant=named(variant), rest=rest)
                    counted = measure.counted or drawn.counted
                    made.append(Series(score, variant, title, measure.rank, counted))
    return made


def kinds(task: str, rows: Iterable[TaskRow]) -> list[str]:
    """Return the kinds of features, or variants, that rows hold, in the order of the figures.

    Parameters
    ----------
    task
        Its key.
    rows
        Of the task.
    """
    held = {kind(task, row) for row in rows}
    return [one for one in DRAWN[task].kinds if one in held]


def kind(task: str, row: TaskRow) -> str:
    """Return which kind a row is of: its features, or its variant."""
    return row.variant if DRAWN[task].by_variant else row.features


def named(variant: str) -> str:
    """Return what a variant is called on figures."""
    return VARIANTS.get(variant, variant.replace("=", " = "))


def _asked(task: str, measure: Measure, variant: str, found: Iterable[str]) -> bool:
    if measure.variants == "headline":
        return variant in HEADLINES[task].chosen_variants(found)
    return measure.variants == "all" or variant in measure.variants
