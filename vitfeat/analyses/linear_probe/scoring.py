"""How the analysis ``linear_probe`` is scored."""

from vitfeat.analyses.scoring import TOKENS, Headline, Measure, Rank, Scoring

SCORING = Scoring(
    title="Linear probe",
    short="Linear probe",
    headline=Headline("top1", "top-1", tuple(TOKENS)),
    ranked=("top1", "top5"),
    counted="test image",
    measures=(
        Measure("top1", "Top-1", Rank.OVERVIEW),
        Measure("top5", "Top-5", Rank.SET),
    ),
    kinds=TOKENS,
    chosen="penalty=",
    meaning="Top-1: share of the test images whose class the probe finds most likely; top-5: "
    "whose class is among its five most likely.",
)
