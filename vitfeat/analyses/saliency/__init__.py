"""The most attended tokens against annotated masks."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.saliency.settings import SaliencySettings

ANALYSIS = Analysis("saliency", SaliencySettings, place=130, annotations="regions", scored=True)
