"""Of which datasets one job is of all models: a job each would start longer than it works."""

from __future__ import annotations

from vitfeat.config.config import Config
from vitfeat.models.shapes import guess_shape
from vitfeat.plan.disk import Size, dataset_size, store_items
from vitfeat.plan.needs import extraction_seconds
from vitfeat.plan.study import enlarged

SMALL_STORES = 2**30
"""Bytes of all models' stores of a dataset, below which one job is of all models."""

SHORT_PASS = 30.0
"""Seconds of one core that a pass may take to share a job with those of other models.

They are surely enough: it takes about as long in fact as a process to start, 5 s.
"""


def is_small(config: Config, dataset: str) -> bool:
    """Return whether all models' stores of a dataset are little work."""
    size = dataset_size(config, dataset)
    return size is not None and _is_small(config, dataset, size)


def _is_small(config: Config, dataset: str, size: Size) -> bool:
    sizes = {dataset: size}
    items = (store_items(config, dataset, entry, sizes) for entry in config.models)
    return sum(item.n_bytes for some in items for item in some) < SMALL_STORES


def extracted_together(config: Config, dataset: str) -> bool:
    """Return whether one job pushes a dataset through all models: each pass is short.

    What goes after use is made for each model alone: a further model would need it of all. How
    images are pushed plays no part, so that another device makes nothing anew.
    """
    asked = config.extraction
    if not asked.together or asked.jobs not in (1, "auto") or asked.keep is not None:
        return False
    size = dataset_size(config, dataset)
    if size is None or not _is_small(config, dataset, size):
        return False
    times = (
        extraction_seconds(guess_shape(m), size.images, 1, enlarged(config, dataset, m.id))
        for m in config.models
    )
    return max(times) < SHORT_PASS
