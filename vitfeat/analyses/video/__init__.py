"""Objects of the first frame, followed through a video."""

from vitfeat.analyses.base import ANNOTATIONS, INDEX, ROOT, STORE, Analysis, Job, scores_across
from vitfeat.analyses.video.needs import needs
from vitfeat.analyses.video.scoring import SCORING
from vitfeat.analyses.video.settings import VideoSettings

ANALYSIS = Analysis(
    "video",
    VideoSettings,
    place=100,
    annotations="frames",
    jobs=(
        Job(
            "video",
            "job:write_video",
            inputs={"store": STORE, "frames": ANNOTATIONS, "index": INDEX, "root": ROOT},
            outputs={
                "out": "video/{dataset}/{model}.csv",
                "figure": "video/{dataset}/{model}/frames.png",
                "mask_folder": "video/{dataset}/{model}/masks",
            },
            folders=frozenset({"mask_folder"}),
            settings=(
                *("context", "neighbourhood", "top", "temperature"),
                *("normalise", "objects", "masks"),
            ),
            needs=needs,
            threads=lambda study: study.node_threads,
            label=True,
        ),
    ),
    across=scores_across(SCORING),
)
