"""Points of one image found in another."""

from vitfeat.analyses.base import ANNOTATIONS, INDEX, ROOT, STORE, Analysis, Job, scores_across
from vitfeat.analyses.keypoints.needs import needs
from vitfeat.analyses.keypoints.scoring import SCORING
from vitfeat.analyses.keypoints.settings import KeypointSettings

ANALYSIS = Analysis(
    "keypoints",
    KeypointSettings,
    place=110,
    annotations="points",
    jobs=(
        Job(
            "keypoints",
            "job:write_keypoints",
            inputs={"store": STORE, "index": INDEX, "points": ANNOTATIONS, "root": ROOT},
            outputs={
                "out": "keypoints/{dataset}/{model}.csv",
                "figure": "keypoints/{dataset}/{model}/matches.png",
            },
            settings=("alphas", "pairs", "seed"),
            needs=needs,
            threads=lambda study: study.node_threads,
            label=True,
        ),
    ),
    across=scores_across(SCORING),
)
