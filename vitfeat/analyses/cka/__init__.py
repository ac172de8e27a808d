"""Linear CKA of the layers of models, from Gram matrices."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.cka.settings import CkaSettings

ANALYSIS = Analysis("cka", CkaSettings, place=10)
