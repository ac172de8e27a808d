"""What decides the numbers of a pass of images through a model, by the config."""

from __future__ import annotations

from typing import Any

from vitfeat.config.config import Config
from vitfeat.models.entry import ModelEntry


def entry_fields(model: ModelEntry) -> dict[str, Any]:
    """Return the fields of a model that decide a store's numbers.

    How a model is shown is for the figures alone; but a weight file is held to the family.
    """
    from_file = model.is_fetched or model.checkpoint
    shown = ("id", "label") if from_file else ("id", "family", "label")
    return {k: v for k, v in model.to_mapping().items() if k not in shown and v not in (None, {})}


def pass_settings(config: Config, dataset: str) -> dict[str, Any]:
    """Return what decides a store's numbers, beside the model, the images and what is stored."""
    view = config.view(dataset).to_mapping()
    asked = {"view": None if view == {"kind": "square"} else view}
    asked |= {k: config.extraction[k] for k in ("layers", "dtype", "keep_bits", "precision")}
    return {key: value for key, value in asked.items() if value is not None}
