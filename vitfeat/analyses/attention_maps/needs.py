"""What the job of ``attention_maps`` needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.analyses.base import Needs
from vitfeat.plan.needs import extraction_memory_mb

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for the pass of the images that are shown, and then for their figures."""
    images = study.settings(AttentionMapSettings).images
    extraction = study.config.extraction
    memory = extraction_memory_mb(
        study.shape,
        extraction["batch_size"],
        ["attention"],
        extraction["dtype"],
        n_images=images if isinstance(images, int) else len(images),
    )
    return Needs(memory, 60)
