"""Images of the same landmark, ranked."""

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.retrieval.settings import RetrievalSettings

ANALYSIS = Analysis("retrieval", RetrievalSettings, place=90, annotations="relevance", scored=True)
