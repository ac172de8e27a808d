"""Images of the same landmark, ranked."""

from vitfeat.analyses.base import ANNOTATIONS, INDEX, ROOT, STORE, Analysis, Job, scores_across
from vitfeat.analyses.retrieval.needs import needs
from vitfeat.analyses.retrieval.scoring import SCORING
from vitfeat.analyses.retrieval.settings import RetrievalSettings

_INPUTS = {"store": STORE, "relevance": ANNOTATIONS}

ANALYSIS = Analysis(
    "retrieval",
    RetrievalSettings,
    place=90,
    annotations="relevance",
    jobs=(
        Job(
            "retrieval",
            "job:write_retrieval",
            inputs=_INPUTS,
            outputs={"out": "retrieval/{dataset}/{model}.csv"},
            settings=("features", "final_norm", "ranks"),
            needs=needs,
        ),
        Job(
            "ranking",
            "ranking_job:write_ranking",
            inputs={**_INPUTS, "index": INDEX, "root": ROOT},
            outputs={"out": "retrieval/{dataset}/{model}/ranking.png"},
            settings=("features", "final_norm"),
            needs=needs,
            label=True,
        ),
    ),
    across=scores_across(SCORING),
)
