"""Images of the same landmark, ranked."""

from vitfeat.analyses.base import Analysis, scores_across
from vitfeat.analyses.retrieval.settings import RetrievalSettings

ANALYSIS = Analysis(
    "retrieval",
    RetrievalSettings,
    place=90,
    annotations="relevance",
    across=scores_across("details"),
)
