"""Classes by votes of the nearest training images."""

from vitfeat.analyses.base import Analysis, scores_across
from vitfeat.analyses.knn.scoring import SCORING
from vitfeat.analyses.knn.settings import KnnSettings

ANALYSIS = Analysis("knn", KnnSettings, place=70, labels=True, across=scores_across(SCORING))
