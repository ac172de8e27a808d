"""What the job of ``residual`` needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import gram_memory_mb
from vitfeat.analyses.residual.settings import ResidualSettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for features and a layer of the images that branches are kept for, and minutes."""
    n, limit = study.n_images, study.settings(ResidualSettings).images
    return Needs(gram_memory_mb(n if limit is None else min(n, limit)), 120)
