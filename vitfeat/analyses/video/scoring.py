"""How the analysis ``video`` is scored."""

from vitfeat.analyses.scoring import SPATIAL, Headline, Measure, Rank, Scoring

SCORING = Scoring(
    title="Objects followed through videos",
    short="Video objects",
    headline=Headline("jf_mean", "J&F", tuple(SPATIAL)),
    ranked=("jf_mean", "[jf]_mean", "[jf]_recall"),
    counted="object",
    measures=(
        Measure("jf_mean", "J&F mean", Rank.OVERVIEW),
        Measure("j_mean", "J mean (region)", Rank.OVERVIEW),
        Measure("f_mean", "F mean (boundary)", Rank.OVERVIEW),
        Measure("j_recall", "J recall", Rank.DETAILS),
        Measure("j_decay", "J decay, less is better", Rank.DETAILS),
        Measure("f_recall", "F recall", Rank.DETAILS),
        Measure("f_decay", "F decay, less is better", Rank.DETAILS),
    ),
    kinds=SPATIAL,
    groups="sequences",
    meaning="J: intersection over union of the predicted and the true mask; F: F-measure of "
    "their outlines; J&F: the mean of both. Means over frames and objects.",
    details="Objects followed through videos: recall and decay",
    details_meaning="Recall: share of frames in which J (mask) or F (outline) is above 0.5; "
    "decay: mean of the first quarter of a sequence minus that of the last.",
)
