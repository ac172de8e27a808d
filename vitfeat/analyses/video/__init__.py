"""Objects of the first frame, followed through a video."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.video.settings import VideoSettings

ANALYSIS = Analysis("video", VideoSettings, place=100, annotations="frames", scored=True)
