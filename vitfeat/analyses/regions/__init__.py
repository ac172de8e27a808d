"""k-means of features pooled under annotated masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import ANNOTATIONS, STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.needs import CORE_FLOPS, ITERATIONS, clustered_mb, masks_mb, minutes
from vitfeat.analyses.regions.settings import RegionSettings
from vitfeat.analyses.scoring import Headline, Measure, Rank, Scoring

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

SCORING = Scoring(
    title="Clusters of regions and their categories",
    short="Regions",
    headline=Headline("nmi", "NMI", ("regions",), ("object", "part"), levels=True),
    ranked=("nmi", "ari", "purity"),
    counted="region",
    measures=(
        Measure("nmi", "NMI", Rank.OVERVIEW),
        Measure("ari", "ARI", Rank.SET),
        Measure("purity", "Purity", Rank.OVERVIEW),
    ),
    kinds={"object": "objects", "part": "parts"},
    by_variant=True,
    variants={"object": "objects", "part": "parts"},
    meaning="Clusters of k-means against the regions' categories, means over seeds; 1 is full "
    "agreement. By chance ARI is about 0; NMI and purity are more.",
)


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


ANALYSIS = Analysis(
    "regions",
    RegionSettings,
    place=120,
    annotations="regions",
    jobs=(
        Job(
            "regions",
            "job:write_regions",
            inputs={"store": STORE, "regions": ANNOTATIONS},
            outputs={"out": "regions/{dataset}/{model}.csv"},
            # How masks weigh tokens is of the extraction.
            settings=("clusters", "n_init", "seeds", "seed"),
            alone=True,
            needs=needs,
            threads=lambda study: study.node_threads,
        ),
    ),
    across=Across((SCORING,)),
)
