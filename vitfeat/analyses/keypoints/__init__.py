"""Points of one image found in another."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.keypoints.settings import KeypointSettings

ANALYSIS = Analysis("keypoints", KeypointSettings, place=110, annotations="points", scored=True)
