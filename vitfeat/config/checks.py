"""What a schema cannot check of a config: numbers, and views that give what analyses need.

The jobs would find most of it, but only after datasets are indexed, each model anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitfeat.analyses.settings import LearntSettings
from vitfeat.config.config import Config, lacking
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import ConfigError
from vitfeat.store.layout import RAGGED_TAPS

# Kinds of tokens that are compared place by place.
_FLATTENED = ("spatial", "all")


def check_apart(results: Path, specs: Iterable[DatasetSpec]) -> None:
    """Refuse results within a folder whose images are taken wherever they lie."""
    for spec in specs:
        top = spec.root / spec.split if spec.split else spec.root
        if spec.layout in ("flat", "folder") and results.absolute().is_relative_to(top.absolute()):
            raise ConfigError(
                f"datasets.{spec.name}.root: {str(top)!r} holds the folder of results "
                f"{str(results)!r}, whose figures would be images of the dataset; choose another"
            )


def check_views(config: Config) -> None:
    """Refuse views that do not give what analyses need of their datasets."""
    for name, analysis in config.analyses.items():
        for dataset in analysis.sources:
            view = config.view(dataset)
            remedy = f"leave it out, or set datasets.{dataset}.view"
            if lost := lacking(view, analysis.required_taps()):
                if all(tap in RAGGED_TAPS for tap in lost):
                    why = f"gives not of images in windows; {remedy}.passes: one"
                else:
                    why = f"does not give; {remedy}: {{kind: square}}"
                raise ConfigError(
                    f"analyses.{name}: needs {', '.join(lost)} of {dataset!r}, which the view "
                    f"dense {why}"
                )
            flat = [tokens for tokens in getattr(analysis, "tokens", ()) if tokens in _FLATTENED]
            if view.kind == "dense" and flat:
                raise ConfigError(
                    f"analyses.{name}.tokens: {', '.join(flat)} of {dataset!r} cannot be compared: "
                    "images of the view dense have different numbers of tokens; take cls and mean "
                    f"alone, or set datasets.{dataset}.view: {{kind: square}}"
                )
        if isinstance(analysis, LearntSettings):
            for dataset, source in analysis.train.items():
                _check_same_view(config, dataset, source)


def _check_same_view(config: Config, name: str, source: str) -> None:
    ours, theirs = (config.view(one).to_mapping() for one in (name, source))
    if ours != theirs:
        raise ConfigError(
            f"datasets.{source}.view: {_shown(theirs)}, and {name!r}, which is classified from it, "
            f"has {_shown(ours)}; features of both must be of one view"
        )


def _shown(view: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in view.items()) + "}"
