"""Objects of the first frame, followed through a video."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import (
    ANNOTATIONS,
    INDEX,
    ROOT,
    STORE,
    Across,
    Analysis,
    Job,
    Needs,
)
from vitfeat.analyses.needs import CORE_FLOPS, minutes
from vitfeat.analyses.scoring import SPATIAL, Headline, Measure, Rank, Scoring
from vitfeat.analyses.video.settings import VideoSettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

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


def needs(study: Study) -> Needs:
    """Return MiB for the context of a layer a thread and a video's masks, and minutes to follow."""
    shape, tokens, threads = study.shape, frame_tokens(study), study.threads
    context = study.settings(VideoSettings).context
    frames = 4 * (context + 2) * tokens * shape.width / 2**20
    work = 2 * (context + 1) * tokens**2 * shape.width / CORE_FLOPS
    # Beside the products, a second for a frame's masks and their scores.
    seconds = study.n_images * shape.depth * (work + 1) / threads
    # A hundred masks of 854 x 480 pixels; of products there are at most 96 MiB at once.
    return Needs(900 + int(threads * (frames + 96 + 100)), minutes(seconds))


def frame_tokens(study: Study) -> int:
    """Return about how many tokens a frame has: frames are as wide as DAVIS's, 16 to 9."""
    shape, view = study.shape, study.config.view(study.dataset)
    if view.kind != "dense":
        return shape.tokens
    side, pixels = view.side
    short = pixels if side == "short" else pixels * 9 // 16
    rows = max(1, short // shape.patch)
    return rows * max(1, short * 16 // 9 // shape.patch)


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
            alone=True,
            needs=needs,
            threads=lambda study: study.node_threads,
            label=True,
        ),
    ),
    across=Across((SCORING,)),
)
