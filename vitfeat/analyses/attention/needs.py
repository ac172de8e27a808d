"""What the jobs of ``attention`` need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.base import Needs
from vitfeat.analyses.needs import CLASS_IMAGES, NUMPY_MB, READ_NUMBERS, minutes

if TYPE_CHECKING:
    from vitfeat.plan.study import Study


def needs(study: Study) -> Needs:
    """Return MiB for pieces that are read and maps of every class, and minutes to read the store.

    A file of maps is put together in memory.
    """
    shape, n = study.shape, study.n_images
    classes = n // CLASS_IMAGES + 1 if study.settings(AttentionSettings).by_class else 1
    # Four maps a class.
    layer = 4 * 8 * classes * shape.heads * shape.tokens
    # About four float32 maps and an aligned one a head, beside the tokens' channels.
    numbers = shape.depth * shape.tokens * (shape.width + 8 * shape.heads)
    return Needs(
        NUMPY_MB + 800 + int((3 * layer + 1.5 * shape.depth * layer) / 2**20),
        minutes(n * numbers / READ_NUMBERS),
    )


def drawing_needs(study: Study) -> Needs:
    """Return MiB for the maps of all models, and minutes for eight figures of each."""
    return Needs(2000, 30 + 2 * len(study.config.models))
