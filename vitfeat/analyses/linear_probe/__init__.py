"""Classes by logistic regression on every layer."""

from vitfeat.analyses.base import Analysis, scores_across
from vitfeat.analyses.linear_probe.scoring import SCORING
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings

ANALYSIS = Analysis(
    "linear_probe", LinearProbeSettings, place=80, labels=True, across=scores_across(SCORING)
)
