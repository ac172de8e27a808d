"""What skip connections carry, against what attention and MLP add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import STORE, Across, Analysis, Job, Needs
from vitfeat.analyses.needs import gram_memory_mb
from vitfeat.analyses.residual.across import CKA, NORMS
from vitfeat.analyses.residual.settings import ResidualSettings, compares

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for features and a layer of the images that branches are kept for, and minutes."""
    n, limit = study.n_images, study.settings(ResidualSettings).images
    return Needs(gram_memory_mb(n if limit is None else min(n, limit)), 120)


ANALYSIS = Analysis(
    "residual",
    ResidualSettings,
    place=60,
    jobs=(
        Job(
            "residual",
            "job:write_residual",
            inputs={"store": STORE},
            outputs={
                "norms": "residual/{dataset}/{model}.norms.csv",
                "cka": "residual/{dataset}/{model}.cka.csv",
            },
            optional={"cka": compares},
            settings=("tokens",),
            needs=needs,
            # One reads while the other sums.
            threads=lambda study: min(2, study.node_threads),
            gpu=compares,
        ),
    ),
    across=Across(
        (NORMS, CKA),
        title="What skip connections carry beside the branches",
        settings=("tokens",),
    ),
)
