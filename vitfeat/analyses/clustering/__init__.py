"""k-means of features against the classes of images."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.clustering.settings import ClusteringSettings

ANALYSIS = Analysis("clustering", ClusteringSettings, place=50, labels=True)
