"""Points of one image found in another."""

from vitfeat.analyses.base import Analysis, scores_across
from vitfeat.analyses.keypoints.scoring import SCORING
from vitfeat.analyses.keypoints.settings import KeypointSettings

ANALYSIS = Analysis(
    "keypoints",
    KeypointSettings,
    place=110,
    annotations="points",
    across=scores_across(SCORING),
)
