"""Attention on high-norm tokens: the share that goes to sinks among the spatial tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.needs import NUMPY_MB, READ_NUMBERS, minutes
from vitfeat.analyses.sinks.across import CURVES
from vitfeat.analyses.sinks.settings import SinkSettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for pieces and a layer's shares, and minutes to read attention and tokens."""
    settings, shape, n = study.settings(SinkSettings), study.shape, study.n_images
    kept = n * (shape.tokens + 8 * shape.heads) / 2**20
    rows = shape.depth * shape.heads * len(settings.queries)
    features = shape.width * (shape.depth if settings.norms == "own" else 1)
    numbers = n * shape.tokens * (rows + features)
    return Needs(NUMPY_MB + 400 + int(kept), minutes(numbers / READ_NUMBERS))


ANALYSIS = Analysis(
    "sinks",
    SinkSettings,
    place=45,
    jobs=(
        Job(
            "sinks",
            "job:write_sinks",
            inputs={"store": STORE},
            outputs={"out": "sinks/{dataset}/{model}.csv"},
            settings=("rule", "norms", "queries"),
            needs=needs,
        ),
    ),
    across=Across((CURVES,)),
)
