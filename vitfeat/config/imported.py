"""Models whose features are from elsewhere: what they take part in, and the files they need."""

from __future__ import annotations

from dataclasses import replace

from vitfeat.analyses.base import Analysis
from vitfeat.analyses.registry import analyses
from vitfeat.config.config import Config
from vitfeat.data.images import printable
from vitfeat.errors import ConfigError


def of_models(config: Config, *, imported: bool) -> Config:
    """Return a config of those models alone whose features are from elsewhere, or of the others."""
    return _only(config, {m.id for m in config.models if m.is_imported == imported})


def of_analysis(config: Config, analysis: Analysis) -> Config:
    """Return a config of the models that an analysis can be made of.

    Of imported ones there is a vector an image, and no more.
    """
    return config if analysis.vectors else of_models(config, imported=False)


def _only(config: Config, ids: set[str]) -> Config:
    if len(ids) == len(config.models):
        return config
    sets = {name: tuple(m for m in some if m in ids) for name, some in config.sets.items()}
    return replace(
        config,
        models=tuple(model for model in config.models if model.id in ids),
        sets={name: some for name, some in sets.items() if some},
    )


def imported_datasets(config: Config) -> list[str]:
    """Return the datasets of which every imported model needs features."""
    read = {
        dataset
        for name, settings in config.analyses.items()
        if analyses()[name].vectors
        for dataset in settings.sources
    }
    return [name for name in config.datasets if name in read]


def check_imported(config: Config) -> None:
    """Refuse imported models that lack the features of a dataset."""
    datasets = imported_datasets(config)
    for model in config.models:
        if not model.is_imported:
            continue
        where = f"catalog.{model.id}.features"
        if len({model.features_of(dataset) for dataset in datasets}) < len(datasets):
            raise ConfigError(
                f"{where}: found {model.features!r}, one file for the datasets "
                f"{', '.join(datasets)}; write {{dataset}} where the name of each stands"
            )
        for dataset in datasets:
            if not (path := model.features_of(dataset)).exists():
                raise ConfigError(
                    f"{where}: {printable(str(path))} does not exist, the features of {dataset!r}, "
                    "which an analysis reads; put them there, or take the model out of models"
                )
