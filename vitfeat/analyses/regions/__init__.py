"""k-means of features pooled under annotated masks."""

from vitfeat.analyses.base import Analysis, scores_across
from vitfeat.analyses.regions.settings import RegionSettings

ANALYSIS = Analysis(
    "regions", RegionSettings, place=120, annotations="regions", across=scores_across()
)
