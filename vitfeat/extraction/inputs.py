"""How a dataset's images become a model's inputs: the view, and the grid of each image's tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitfeat.data.index import Index
from vitfeat.data.views import DenseView, PaddedView, SquareView, View, ViewSettings
from vitfeat.errors import ConfigError
from vitfeat.models.backbone import Backbone

# Families whose own code takes images of any size, fitting positions to each.
_ANY_SIZE = frozenset({"dino", "dinov2", "dinov2-reg", "dinov3"})


def view_for(backbone: Backbone, settings: ViewSettings) -> View:
    """Return the view of a model's images.

    Raises
    ------
    ConfigError
        The settings do not fit the model.
    """
    interpolation = settings.interpolation or backbone.interpolation
    if settings.kind == "square":
        own = backbone.entry.crop_fraction
        fraction = own if settings.crop_fraction is None else settings.crop_fraction
        return SquareView(backbone.image_size, fraction, interpolation)
    if settings.kind == "padded":
        return PaddedView(backbone.image_size, interpolation)
    auto = settings.passes == "auto" and backbone.entry.family_key in _ANY_SIZE
    window = None if auto or settings.passes == "one" else backbone.image_size
    try:
        return DenseView(*settings.side, backbone.patch_size, window, interpolation)
    except ValueError as error:
        side = settings.side[0]
        raise ConfigError(
            f"model {backbone.entry.id}: view.{side}_side: {error}; set a larger {side}_side, or "
            "passes: one"
        ) from error


def grid_shapes(view: DenseView, index: Index) -> NDArray[np.int64]:
    """Return int64 (image, 2): rows and columns of every image's grid of tokens."""
    sizes = [view.size_of(*row.seen_size) for row in index.rows()]
    return np.array(sizes, dtype=np.int64) // np.array(view.patch, dtype=np.int64)
