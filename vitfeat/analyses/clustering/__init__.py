"""k-means of features against the classes of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.clustering.across import SCORING
from vitfeat.analyses.clustering.settings import ClusteringSettings
from vitfeat.analyses.needs import (
    CLASS_IMAGES,
    CORE_FLOPS,
    ITERATIONS,
    NUMPY_MB,
    clustered_mb,
    minutes,
)

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for features of layers and their copies, and minutes for k-means of all layers."""
    settings, shape = study.settings(ClusteringSettings), study.shape
    n, threads = study.n_images, study.threads
    patterns = shape.tokens**2
    widths = [patterns if f == "attention_mean" else shape.width for f in settings.features]
    runs = settings.seeds * settings.n_init
    clusters = settings.clusters or n // CLASS_IMAGES + 1
    work = shape.depth * runs * ITERATIONS * 2 * n * clusters * sum(widths)
    return Needs(
        NUMPY_MB + 400 + clustered_mb(n, max(widths), threads),
        minutes(work / (CORE_FLOPS * threads)),
    )


ANALYSIS = Analysis(
    "clustering",
    ClusteringSettings,
    place=50,
    vectors=True,
    labels=True,
    jobs=(
        Job(
            "clustering",
            "job:write_clustering",
            inputs={"store": STORE},
            outputs={"out": "clustering/{dataset}/{model}.csv"},
            settings=(
                *("features", "pattern_layers", "clusters"),
                *("n_init", "seeds", "seed", "shuffled"),
            ),
            alone=True,
            needs=needs,
            threads=lambda study: study.node_threads,
        ),
    ),
    across=Across((SCORING,)),
)
