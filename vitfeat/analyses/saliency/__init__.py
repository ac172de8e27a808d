"""The most attended tokens against annotated masks."""

from vitfeat.analyses.base import ANNOTATIONS, INDEX, ROOT, STORE, Analysis, Job, scores_across
from vitfeat.analyses.saliency.needs import drawing_needs, needs
from vitfeat.analyses.saliency.scoring import SCORING
from vitfeat.analyses.saliency.settings import SaliencySettings

_INPUTS = {"store": STORE, "index": INDEX, "regions": ANNOTATIONS}
_KEPT = ("queries", "mass", "masks")

ANALYSIS = Analysis(
    "saliency",
    SaliencySettings,
    place=130,
    annotations="regions",
    jobs=(
        Job(
            "saliency",
            "job:write_saliency",
            inputs=_INPUTS,
            outputs={"out": "saliency/{dataset}/{model}.csv"},
            settings=_KEPT,
            needs=needs,
        ),
        Job(
            "saliency_masks",
            "masks_job:write_saliency_masks",
            inputs={**_INPUTS, "root": ROOT, "table": "saliency/{dataset}/{model}.csv"},
            outputs={"out": "saliency/{dataset}/{model}/masks.png"},
            settings=(*_KEPT, "images"),
            needs=drawing_needs,
            label=True,
        ),
    ),
    across=scores_across(SCORING),
)
