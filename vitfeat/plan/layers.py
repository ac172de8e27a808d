"""Jobs that share the layers of a model, and the one that joins their tables, as rules."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import ClassVar

from vitfeat.analyses.base import Needs
from vitfeat.config.config import Config
from vitfeat.models.layers import select_layers
from vitfeat.models.shapes import guess_shape
from vitfeat.plan.steps import LAYERS, Step, Wildcards
from vitfeat.plan.study import Study
from vitfeat.plan.words import flags, setting_flags

LAYERS_A_JOB = 6
"""Layers of a model that a job is of at most, where several share them."""


@dataclass(frozen=True)
class LayersStep(Step):
    """A kind of job as a rule of some layers of a model; its table is joined with the others'."""

    temporary: ClassVar[bool] = True

    @property
    def constraints(self) -> dict[str, str]:
        """Patterns of the wildcards."""
        return {**super().constraints, "layers": r"\d+(-\d+)?"}

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat run`` is told."""
        layers = layer_groups(self.config, wildcards.model)[wildcards.layers]
        words = super().command(wildcards).replace(LAYERS, wildcards.layers)
        return shlex.join([*shlex.split(words), *flags({"layers": layers})])

    @property
    def group(self) -> str | None:
        """What a job shares submissions to a cluster with: all layers of a model."""
        return f"{self.job.name}-{{model}}"

    def targets(self) -> Iterator[str]:
        """Yield nothing: what it writes goes."""
        yield from ()

    @property
    def _stem(self) -> str:
        return f"{super()._stem}/layers-{LAYERS}"

    def _studies(self, wildcards: Wildcards, threads: int = 1) -> Iterator[Study]:
        layers = layer_groups(self.config, wildcards.model)[wildcards.layers]
        for study in super()._studies(wildcards, threads):
            yield replace(study, layers=len(layers))


@dataclass(frozen=True)
class JoinStep(Step):
    """What joins the tables of a model's layers, as a rule."""

    group = LayersStep.group

    @property
    def joined(self) -> str:
        """The settings of the tables, which are gone by the time that one changes."""
        return shlex.join(setting_flags(self.job.used(self.settings)))

    def inputs(self, wildcards: Wildcards) -> list[str]:
        """Return the files that it waits for: the tables, and what they are made from."""
        return [*self._tables(wildcards), *super().inputs(wildcards)]

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat run`` is told."""
        (store, *_), (out,) = self.job.inputs.values(), self.job.outputs.values()
        dataset, model = wildcards.dataset, wildcards.model
        words = ["join_layers", *self._tables(wildcards)]
        words += [f"--store={self._place(store, dataset, model)}"]
        return shlex.join([*words, f"--out={self._path(out, dataset, model)}"])

    def _tables(self, wildcards: Wildcards) -> list[str]:
        (out,) = self.job.outputs.values()
        path = self._path(of_layers(out), wildcards.dataset, wildcards.model)
        groups = layer_groups(self.config, wildcards.model)
        return [path.replace(LAYERS, layers) for layers in groups]


def layer_groups(config: Config, model: str) -> dict[str, list[int]]:
    """Return the layers of each of the jobs that share a model's, by the first and the last.

    How many a model has is guessed from its name.
    """
    layers = select_layers(guess_shape(config.model(model)).depth, config.extraction.layers)
    n_jobs = ceil(len(layers) / LAYERS_A_JOB)
    cuts = [len(layers) * number // n_jobs for number in range(n_jobs + 1)]
    groups = [layers[start:stop] for start, stop in pairwise(cuts)]
    return {"-".join(map(str, dict.fromkeys((g[0], g[-1])))): g for g in groups}


def of_layers(table: str) -> str:
    """Return where the table of some layers stands until they are joined."""
    return f"{table.removesuffix('.csv')}/layers-{LAYERS}.csv"


def joining(_: Study) -> Needs:
    """Return what it takes to join tables."""
    return Needs(500, 10)
