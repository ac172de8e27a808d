"""How the analysis ``retrieval`` is scored."""

from vitfeat.analyses.scoring import TOKENS, Headline, Measure, Rank, Scoring

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
