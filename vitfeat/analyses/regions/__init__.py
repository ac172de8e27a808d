"""k-means of features pooled under annotated masks."""

from vitfeat.analyses.base import ANNOTATIONS, STORE, Analysis, Job, scores_across
from vitfeat.analyses.regions.needs import needs
from vitfeat.analyses.regions.scoring import SCORING
from vitfeat.analyses.regions.settings import RegionSettings

ANALYSIS = Analysis(
    "regions",
    RegionSettings,
    place=120,
    annotations="regions",
    jobs=(
        Job(
            "regions",
            "job:write_regions",
            inputs={"store": STORE, "regions": ANNOTATIONS},
            outputs={"out": "regions/{dataset}/{model}.csv"},
            # How masks weigh tokens is of the extraction.
            settings=("clusters", "n_init", "seeds", "seed"),
            needs=needs,
            threads=lambda study: study.node_threads,
        ),
    ),
    across=scores_across(SCORING),
)
