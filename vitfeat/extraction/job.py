"""One extraction, as its parts see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vitfeat.data.views import DenseView, View
from vitfeat.extraction.regions import Regions
from vitfeat.extraction.tiling import Tiling
from vitfeat.models.backbone import Backbone
from vitfeat.store.arrays import Geometry
from vitfeat.store.layout import Layout


@dataclass(frozen=True)
class Job:
    """What is run: a model on a device, and the store that its tensors go to."""

    backbone: Backbone
    geometry: Geometry
    layout: Layout
    device: torch.device
    dtype: str
    keep_bits: int | None
    precision: str
    threads: int
    image_ids: Sequence[str]
    view: View
    regions: Regions | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the device has a memory of its own."""
        return self.device.type != "cpu"

    def tiling(self, size: tuple[int, int]) -> Tiling | None:
        """Return how inputs of a (height, width) are cut into windows; None for one pass."""
        if not isinstance(self.view, DenseView) or self.view.window is None:
            return None
        (height, width), (down, across) = size, self.view.patch
        return Tiling((height // down, width // across), self.backbone.grid, self.view.patch)
