"""k-means of features against the classes of images."""

from vitfeat.analyses.base import STORE, Across, Analysis, Job
from vitfeat.analyses.clustering.needs import needs
from vitfeat.analyses.clustering.settings import ClusteringSettings

ANALYSIS = Analysis(
    "clustering",
    ClusteringSettings,
    place=50,
    labels=True,
    jobs=(
        Job(
            "clustering",
            "job:write_clustering",
            inputs={"store": STORE},
            outputs={"out": "clustering/{dataset}/{model}.csv"},
            settings=(
                *("features", "pattern_layers", "clusters"),
                *("n_init", "seeds", "seed", "shuffled"),
            ),
            needs=needs,
            threads=lambda study: study.node_threads,
        ),
    ),
    across=Across(
        "across:draw_set", "across:draw_overview", names=lambda _: ("by_layer", "families", "best")
    ),
)
