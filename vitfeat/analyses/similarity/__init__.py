"""Models compared by several measures, with confidence intervals."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.similarity.settings import SimilaritySettings

ANALYSIS = Analysis("similarity", SimilaritySettings, place=20)
