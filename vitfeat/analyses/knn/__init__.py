"""Classes by votes of the nearest training images."""

from vitfeat.analyses.base import STORE, TRAIN_STORE, Analysis, Job, scores_across
from vitfeat.analyses.knn.needs import needs
from vitfeat.analyses.knn.scoring import SCORING
from vitfeat.analyses.knn.settings import KnnSettings

ANALYSIS = Analysis(
    "knn",
    KnnSettings,
    place=70,
    labels=True,
    jobs=(
        Job(
            "knn",
            "job:write_knn",
            inputs={"store": STORE, "train": TRAIN_STORE},
            outputs={"out": "knn/{dataset}/{model}.csv"},
            settings=("features", "final_norm", "neighbours", "temperature"),
            needs=needs,
            threads=lambda study: study.node_threads,
            gpu=True,
            by_layers=True,
        ),
    ),
    across=scores_across(SCORING),
)
