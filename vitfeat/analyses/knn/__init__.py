"""Classes by votes of the nearest training images."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.knn.settings import KnnSettings

ANALYSIS = Analysis("knn", KnnSettings, place=70, labels=True, scored=True)
