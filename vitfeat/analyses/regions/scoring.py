"""How the analysis ``regions`` is scored."""

from vitfeat.analyses.scoring import Headline, Measure, Rank, Scoring

SCORING = Scoring(
    title="Clusters of regions and their categories",
    short="Regions",
    headline=Headline("nmi", "NMI", ("regions",), ("object", "part"), levels=True),
    ranked=("nmi", "ari", "purity"),
    counted="region",
    measures=(
        Measure("nmi", "NMI", Rank.OVERVIEW),
        Measure("ari", "ARI", Rank.SET),
        Measure("purity", "Purity", Rank.OVERVIEW),
    ),
    kinds={"object": "objects", "part": "parts"},
    by_variant=True,
    variants={"object": "objects", "part": "parts"},
    meaning="Clusters of k-means against the regions' categories, means over seeds; 1 is full "
    "agreement. By chance ARI is about 0; NMI and purity are more.",
)
