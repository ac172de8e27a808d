"""What the jobs of ``keypoints`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import minutes

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for tokens, points and cosines a thread, and minutes to find points."""
    shape, threads = study.shape, study.threads
    # A millisecond for the cosines with the pixels of an image of half a megapixel.
    point = 1e-3 + 1e-9 * shape.tokens * shape.width
    # Of tokens, 1 GiB is the job's bound.
    return Needs(
        700 + 1024 + 300 + 200 * threads,
        minutes(study.n_annotated * shape.depth * point / threads),
    )
