"""What the jobs of ``regions`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import CORE_FLOPS, ITERATIONS, clustered_mb, masks_mb, minutes
from vitfeat.analyses.regions.settings import RegionSettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

# More than COCO has.
_CATEGORIES = 100


def needs(study: Study) -> Needs:
    """Return MiB for features of layers and the table of masks, minutes for k-means of all."""
    settings, shape = study.settings(RegionSettings), study.shape
    n, threads = study.n_annotated, study.threads
    runs = settings.seeds * settings.n_init
    work = 2 * n * (settings.clusters or _CATEGORIES) * shape.width
    seconds = shape.depth * runs * ITERATIONS * work / (CORE_FLOPS * threads)
    return Needs(800 + masks_mb(n) + clustered_mb(n, shape.width, threads), minutes(seconds))
