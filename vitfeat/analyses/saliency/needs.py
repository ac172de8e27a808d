"""What the jobs of ``saliency`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import READ_NUMBERS, masks_mb, minutes
from vitfeat.analyses.saliency.settings import SaliencySettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

_REGION_SECONDS = 0.005


def needs(study: Study) -> Needs:
    """Return MiB for masks and a layer's scores, and minutes to decode masks and read attention."""
    shape, n = study.shape, study.n_images
    scores = n * (2 * shape.tokens + 32 * shape.heads) / 2**20
    queries = len(study.settings(SaliencySettings).queries)
    numbers = shape.depth * shape.heads * shape.tokens * queries * n
    return Needs(
        1000 + masks_mb(study.n_annotated) + int(scores),
        minutes(numbers / READ_NUMBERS + _REGION_SECONDS * study.n_annotated),
    )


def drawing_needs(study: Study) -> Needs:
    """Return MiB for the same, and minutes for a figure."""
    return Needs(needs(study).memory_mb, 30)
