"""What the jobs of ``clustering`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.needs import CLASS_IMAGES, CORE_FLOPS, NUMPY_MB, minutes

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

# Few runs need more iterations.
_ITERATIONS = 100


def needs(study: Study) -> Needs:
    """Return MiB for features of layers and their copies, and minutes for k-means of all layers."""
    settings, shape = study.settings(ClusteringSettings), study.shape
    n, threads = study.n_images, study.threads
    patterns = shape.tokens**2
    widths = [patterns if f == "attention_mean" else shape.width for f in settings.features]
    layer = 4 * n * max(widths) / 2**20
    # One k-means needs three layers; of several, 2 GiB a thread are the command's bound.
    side_by_side = min((2 * threads + 1) * layer, 2048 * threads)
    runs = settings.seeds * settings.n_init
    clusters = settings.clusters or n // CLASS_IMAGES + 1
    work = shape.depth * runs * _ITERATIONS * 2 * n * clusters * sum(widths)
    return Needs(
        NUMPY_MB + 400 + int(max(3 * layer, side_by_side)), minutes(work / (CORE_FLOPS * threads))
    )
