"""What the jobs of ``cka`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import NUMPY_MB, READ_NUMBERS, gram_memory_mb, minutes

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

# As many layers as most models have.
_LAYERS = 24


def gram_needs(study: Study) -> Needs:
    """Return MiB for the Gram matrices of a layer, and minutes to multiply all features."""
    return Needs(gram_memory_mb(study.n_images), 120)


def pair_needs(study: Study) -> Needs:
    """Return MiB for the blocks of rows of two files, and minutes to read every layer of both."""
    n = study.n_images
    return Needs(
        NUMPY_MB + 512 + int(64 * 8 * n / 2**20), minutes(2 * _LAYERS * n**2 / READ_NUMBERS)
    )


def drawing_needs(_: Study) -> Needs:
    """Return what a figure of one pair takes."""
    return Needs(1000, 15)
