"""Jobs that compare models two by two, as the workflow's rules have them.

Pairs are those of one model with itself and with the models before it in the config, or all: a
further model, written last, costs its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from vitfeat.analyses.needs import minutes_in_turn
from vitfeat.jobs.pair_tables import pairs_of
from vitfeat.plan.figures import shown_models
from vitfeat.plan.steps import MODEL, OTHER, TOKENS, Step, Wildcards
from vitfeat.plan.study import Study
from vitfeat.plan.words import any_of, figure_flags, setting_flags, written


@dataclass(frozen=True)
class PairStep(Step):
    """A job that compares models two by two: one (``of``) with those before it, or all."""

    of: str | None = None

    @property
    def group(self) -> str | None:
        """What a job shares submissions to a cluster with: pairs of all models."""
        return self.job.name if self.of else super().group

    def command(self, wildcards: Wildcards) -> str:
        """Return what ``vitfeat run`` is told."""
        whole = super().command(wildcards)
        return whole if self.of is None else shlex.join([*shlex.split(whole), "--of", self.of])

    def minutes(self, wildcards: Wildcards, threads: int) -> int:
        """Return minutes that it needs: pairs come one after the other."""
        each = (self.job.needs(study).minutes for study in self._studies(wildcards, threads))
        return minutes_in_turn(m for m in each for _ in self._tokens)

    @property
    def _stem(self) -> str:
        return f"{self.job.name}/{{dataset}}" + (f"/{self.of}" if self.of else "")

    @cached_property
    def _compared(self) -> list[str]:
        ids = [model.id for model in self.config.models]
        return sorted(ids if self.of is None else ids[: ids.index(self.of) + 1])

    def _models(self, wildcards: Wildcards) -> list[str]:
        return self._compared

    def _studies(self, wildcards: Wildcards, threads: int = 1) -> Iterator[Study]:
        for pair in pairs_of(self._compared, self.of):
            yield Study(self.config, self.analysis.name, wildcards.dataset, *pair, threads=threads)

    def _with_wildcards(self, patterns: Sequence[str]) -> list[str]:
        return [
            f"{self._results}/{path}"
            for pattern in patterns
            for model, other in pairs_of(self._compared, self.of)
            for path in written(
                pattern.replace(MODEL, model).replace(OTHER, other), self.config.figures
            )
        ]


class PairWildcards(Wildcards, Protocol):
    """Which tokens and which two models a job is of."""

    @property
    def tokens(self) -> str:
        """The kind of tokens."""

    @property
    def other(self) -> str:
        """The second model."""


@dataclass(frozen=True)
class RequestedStep(Step):
    """A job of two models that nothing asks for, as a rule."""

    @property
    def constraints(self) -> dict[str, str]:
        """Patterns of the wildcards."""
        models = any_of(m.id for m in self.config.models)
        some = {"dataset": any_of(self.datasets), "tokens": any_of(self._tokens)}
        return {**some, "model": models, "other": models}

    def inputs(self, wildcards: PairWildcards) -> list[str]:  # type: ignore[override]
        """Return the files that it waits for, whose names have the models in order."""
        pair = sorted((wildcards.model, wildcards.other))
        return [self._of_pair(pattern, wildcards, *pair) for pattern in self.job.inputs.values()]

    @property
    def outputs(self) -> dict[str, list[str]]:
        """The files that it writes, with wildcards."""
        return {
            key: [f"{self._results}/{path}" for path in written(pattern, self.config.figures)]
            for key, pattern in self.job.outputs.items()
        }

    def command(self, wildcards: PairWildcards) -> str:  # type: ignore[override]
        """Return what ``vitfeat run`` is told."""
        pair = (wildcards.model, wildcards.other)
        outputs = (
            f"--{key}={self._of_pair(pattern, wildcards, *pair)}"
            for key, pattern in self.job.outputs.items()
        )
        words = [self.job.name, *self.inputs(wildcards), *outputs]
        words += setting_flags(self.job.used(self.settings))
        words += figure_flags(self.config.figures)
        return shlex.join([*words, "--models", shown_models(self.config, pair)])

    def scope(self, wildcards: Wildcards, output: Sequence[str]) -> str:
        """Return nothing: it is of one kind of tokens."""
        return ""

    def targets(self) -> Iterator[str]:
        """Yield nothing."""
        return iter(())

    @property
    def _stem(self) -> str:
        return f"{self.job.name}/{{dataset}}/{{tokens}}/{{model}}--{{other}}"

    def _of_pair(self, pattern: str, wildcards: PairWildcards, model: str, other: str) -> str:
        path = self._path(pattern, wildcards.dataset, model)
        return path.replace(TOKENS, wildcards.tokens).replace(OTHER, other)
