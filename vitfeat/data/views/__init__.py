"""Views: how an image becomes the array that a model sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vitfeat.data.views.base import View
from vitfeat.data.views.dense import DenseView
from vitfeat.data.views.padded import PaddedView
from vitfeat.data.views.settings import ViewSettings
from vitfeat.data.views.square import SquareView
from vitfeat.data.views.words import in_words
from vitfeat.errors import DataError

__all__ = ["DenseView", "PaddedView", "SquareView", "View", "ViewSettings", "in_words", "view_from"]


def view_from(description: Mapping[str, Any]) -> View:
    """Make the view that a store was extracted with from its ``describe()``."""
    found = {k: tuple(v) if isinstance(v, list) else v for k, v in description.items()}
    kind = found.pop("kind", None)
    # What follows from the others is told for readers only.
    found.pop("resize_to", None)
    kinds: dict[Any, Callable[..., View]] = {
        "square": SquareView,
        "padded": PaddedView,
        "dense": DenseView,
    }
    if kind in kinds:
        return kinds[kind](**found)
    raise DataError(
        f"view {kind!r}: unknown, this vitfeat knows square, padded and dense; use the one that "
        "made the store"
    )
