"""What skip connections carry, against what attention and MLP add."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.residual.settings import ResidualSettings

ANALYSIS = Analysis("residual", ResidualSettings, place=60)
