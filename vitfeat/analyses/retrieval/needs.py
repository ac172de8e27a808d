"""What the jobs of ``retrieval`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import CORE_FLOPS, TORCH_MB, minutes, reading_seconds
from vitfeat.analyses.retrieval.settings import RetrievalSettings

if TYPE_CHECKING:
    from vitfeat.plan.study import Study

# As many as revisited Oxford and Paris have.
_QUERIES = 70
# A query's place for an image in a ranking of a large database.
_SORTING = 5e-7


def needs(study: Study) -> Needs:
    """Return MiB for similarities (1 GiB at most) and blocks of descriptors, minutes to rank."""
    features, shape = study.settings(RetrievalSettings).features, study.shape
    n = study.n_images
    similarities = min(_QUERIES * 4 * n / 2**20, 1024)
    arithmetic = _QUERIES * n * (2 * shape.width / CORE_FLOPS + _SORTING) * len(features)
    reading = study.enlarged * reading_seconds(shape, n, features)
    return Needs(
        # A query's ranking; blocks are bound by 256 MiB and copied.
        TORCH_MB + int(similarities + 64 * n / 2**20) + 1024,
        minutes(shape.depth * (arithmetic + reading)),
    )
