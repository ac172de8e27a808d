"""Objects of the first frame, followed through a video."""

from vitfeat.analyses.base import Analysis, scores_across
from vitfeat.analyses.video.scoring import SCORING
from vitfeat.analyses.video.settings import VideoSettings

ANALYSIS = Analysis(
    "video",
    VideoSettings,
    place=100,
    annotations="frames",
    across=scores_across(SCORING),
)
