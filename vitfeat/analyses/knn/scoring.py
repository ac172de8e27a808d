"""How the analysis ``knn`` is scored."""

from vitfeat.analyses.scoring import TOKENS, Headline, Measure, Rank, Scoring

SCORING = Scoring(
    title="k-nearest neighbours",
    short="k-NN",
    headline=Headline("top1", "top-1", tuple(TOKENS), ("k=20", "k=10", "k=100", "k=200")),
    ranked=("top1", "top5"),
    counted="test image",
    measures=(
        Measure("top1", "Top-1, {variant}", Rank.OVERVIEW, "headline"),
        Measure("top5", "Top-5, {variant}", Rank.SET, "headline"),
        Measure("top1", "Top-1, {variant}", Rank.DETAILS),
    ),
    kinds=TOKENS,
    meaning="Top-1: share of the test images whose class has the most votes of their k nearest "
    "training images; top-5: whose class is among the five with the most.",
    details="k-nearest neighbours with other numbers of neighbours",
    details_meaning="Top-1: share of the test images whose class has the most votes of their k "
    "nearest training images.",
)
