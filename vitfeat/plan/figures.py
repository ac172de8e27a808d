"""Figures across models as the workflow's rules have them, and the tables of all scores."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitfeat.analyses.base import Across, AcrossPairs, Analysis
from vitfeat.analyses.registry import analyses, scored
from vitfeat.analyses.scoring import TOGETHER
from vitfeat.config.config import Config
from vitfeat.config.imported import of_analysis
from vitfeat.jobs.pair_tables import pair_tables
from vitfeat.models.shapes import size_name
from vitfeat.plan.words import figure_flags, flags, setting_flags, written


@dataclass(frozen=True)
class FigureStep:
    """The figures across models of an analysis, as a rule."""

    config: Config
    analysis: Analysis

    @property
    def name(self) -> str:
        """Of the rule."""
        return f"{self.analysis.name}_figures"

    @property
    def folder(self) -> str:
        """Where tables and figures are."""
        return f"{self.config.results.as_posix()}/{self.analysis.name}"

    @property
    def inputs(self) -> list[str]:
        """The tables of all datasets and models."""
        settings = self.config.analyses[self.analysis.name]
        return [
            f"{self.folder}/{dataset}/{model.id}{of.suffix}"
            for dataset in settings.datasets
            for model in self.config.models
            for of in self._across.asked(settings)
        ]

    @property
    def outputs(self) -> list[str]:
        """Every figure: PNG, PDF, and the numbers that it shows."""
        settings = self.config.analyses[self.analysis.name]
        figures = [
            f"{self.folder}/{dataset}/sets/{chosen}/{name}.png"
            for dataset in settings.datasets
            for chosen in model_sets(self.config)
            for name in self._across.names(settings)
        ]
        return [
            path
            for png in (*figures, f"{self.folder}/all.png")
            for path in written(png, self.config.figures)
        ]

    def command(self, _: object) -> str:
        """Return what ``vitfeat`` is told."""
        settings = self.config.analyses[self.analysis.name]
        words = ["draw", self.analysis.name, self.folder]
        words += setting_flags(settings.used(self.analysis.drawn_by))
        words += [*flags({"datasets": settings.datasets}), *_shown(self.config)]
        return shlex.join(words)

    @property
    def _across(self) -> Across:
        assert isinstance(self.analysis.across, Across)
        return self.analysis.across


@dataclass(frozen=True)
class PairFigureStep(FigureStep):
    """The figures of an analysis that compares models two by two, as a rule."""

    @property
    def inputs(self) -> list[str]:
        """The tables of all datasets and pairs."""
        settings: Any = self.config.analyses[self.analysis.name]
        ids = [model.id for model in self.config.models]
        tables = pair_tables(Path(self.folder), settings.datasets, settings.tokens, ids)
        return [table.path.as_posix() for some in tables.values() for table in some]

    @property
    def outputs(self) -> list[str]:
        """Every figure, of all models and of each set."""
        names = self._across.names(self.config.analyses[self.analysis.name])
        folders = [self.folder, *(f"{self.folder}/sets/{chosen}" for chosen in self.config.sets)]
        return [
            path
            for folder in folders
            for name in names
            for path in written(f"{folder}/{name}.png", self.config.figures)
        ]

    @property
    def _across(self) -> AcrossPairs:  # type: ignore[override]
        assert isinstance(self.analysis.across, AcrossPairs)
        return self.analysis.across


@dataclass(frozen=True)
class CollectStep:
    """The tables of all scored analyses together, and their figures, as a rule."""

    config: Config
    name = "collect"

    @property
    def tables(self) -> list[str]:
        """Scored analyses with their datasets, in the order of figures."""
        return [
            f"{name}/{dataset}"
            for name, settings in self.config.analyses.items()
            if name in scored() and of_analysis(self.config, analyses()[name]).models
            for dataset in settings.datasets
        ]

    @property
    def inputs(self) -> list[str]:
        """The tables of all analyses, datasets and models."""
        return [
            f"{self._results}/{table}/{model.id}.csv"
            for table in self.tables
            for model in of_analysis(self.config, analyses()[table.partition("/")[0]]).models
        ]

    @property
    def outputs(self) -> list[str]:
        """Both tables, and every figure: PNG, PDF, and the numbers that it shows."""
        figures = [
            path
            for chosen in model_sets(self.config)
            for name in TOGETHER
            for path in written(f"sets/{chosen}/{name}.png", self.config.figures)
        ]
        return [f"{self._results}/tasks/{path}" for path in ("all.csv", "best.csv", *figures)]

    def command(self, _: object) -> str:
        """Return what ``vitfeat`` is told."""
        words = flags({"tables": self.tables})
        scorers = {name: s for name, s in self.config.analyses.items() if name in scored()}
        texts = {name: s.printed(s.printed_keys()) for name, s in scorers.items()}
        if printed := {name: text for name, text in texts.items() if text}:
            words += ["--printed", json.dumps(printed)]
        if imported := [model.id for model in self.config.models if model.is_imported]:
            words += flags({"imported": imported})
        return shlex.join(["collect", self._results, *words, *_shown(self.config)])

    @property
    def _results(self) -> str:
        return self.config.results.as_posix()


def model_sets(config: Config) -> dict[str, tuple[str, ...]]:
    """Return the choices of models that figures are drawn of: ``all``, and the config's."""
    return {"all": tuple(m.id for m in config.models), **config.sets}


def shown_models(config: Config, ids: Iterable[str] | None = None) -> str:
    """Return models as JSON, as figures know them: all in the order of the config, or some."""
    chosen = config.models if ids is None else [config.model(one) for one in ids]
    return json.dumps(
        [{"id": m.id, "label": m.label, "family": m.family, "size": size_name(m)} for m in chosen]
    )


def _shown(config: Config) -> list[str]:
    """Return the flags that say which models are shown, which choices of them, and how."""
    sets = ["--sets", json.dumps(config.sets)] if config.sets else []
    return ["--models", shown_models(config), *sets, *figure_flags(config.figures)]
