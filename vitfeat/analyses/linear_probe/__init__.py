"""Classes by logistic regression on every layer."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.linear_probe.settings import LinearProbeSettings

ANALYSIS = Analysis("linear_probe", LinearProbeSettings, place=80, labels=True, scored=True)
